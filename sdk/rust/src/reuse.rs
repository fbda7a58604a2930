//! Saying how often an instance may be used.

/// Says that an instance of the component may be used for more than one request or message: 1,000 times, or as often as
/// is given. Once in a crate, at its top level.
///
/// A host gives each request of a component that answers HTTP an instance of its own, since most are written for that: they
/// set a global once, or keep what belongs to a request in a static. A component that does neither is faster when its
/// instance is used again, and says so with this:
///
/// ```
/// caxton_sdk::reusable!();
/// # fn main() {}
/// ```
///
/// It is written into the custom section `caxton:reuse` of the component. What a host's file says in `instances.reuse`
/// comes before it.
#[macro_export]
macro_rules! reusable {
    () => {
        $crate::reusable!(1_000);
    };
    ($times:literal) => {
        const _: () = {
            const TIMES: u32 = $times;
            ::std::assert!(TIMES > 0, "an instance is used at least once");
            // A line, so that several of them stay apart when a linker joins them.
            const TEXT: &str = ::std::concat!(::std::stringify!($times), "\n");
            #[cfg_attr(target_family = "wasm", unsafe(link_section = "caxton:reuse"))]
            #[used]
            static SECTION: [u8; TEXT.len()] = $crate::bytes_of(TEXT);
        };
    };
}

/// A text as an array, for a section that holds nothing but its bytes.
#[doc(hidden)]
pub const fn bytes_of<const LENGTH: usize>(text: &str) -> [u8; LENGTH] {
    let (mut bytes, mut at) = ([0; LENGTH], 0);
    while at < LENGTH {
        bytes[at] = text.as_bytes()[at];
        at += 1;
    }
    bytes
}

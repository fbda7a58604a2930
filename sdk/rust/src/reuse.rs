//! The declaration that instances of a component may be reused.

/// Declares that an instance of the component may handle more than one request or message: 1,000, or the given number.
/// Use it once in a crate, at the top level.
///
/// By default a host gives each request of an HTTP component an instance of its own, since most components are written
/// for that: they set a global once, or keep data of a request in a static. A component that does neither is faster if
/// its instances are reused, and declares that with this macro:
///
/// ```
/// caxton_sdk::reusable!();
/// # fn main() {}
/// ```
///
/// The declaration is written to the custom section `caxton:reuse` of the component. The setting `instances.reuse` of
/// the host takes precedence.
#[macro_export]
macro_rules! reusable {
    () => {
        $crate::reusable!(1_000);
    };
    ($times:literal) => {
        const _: () = {
            // Checked at compile time: a wrong section would only be found by a host.
            const TIMES: u32 = $times;
            ::std::assert!(TIMES > 0, "an instance is used at least once");
            // Ended by a newline, so that several declarations stay apart when a linker joins the sections.
            const TEXT: &str = ::std::concat!(::std::stringify!($times), "\n");
            // Only for wasm: other object formats have other rules for the names of sections.
            #[cfg_attr(target_family = "wasm", unsafe(link_section = "caxton:reuse"))]
            // Kept by the linker although nothing refers to it.
            #[used]
            static SECTION: [u8; TEXT.len()] = $crate::bytes_of(TEXT);
        };
    };
}

/// Returns a text as an array, for a section that contains nothing but the bytes.
#[doc(hidden)]
pub const fn bytes_of<const LENGTH: usize>(text: &str) -> [u8; LENGTH] {
    let (mut bytes, mut at) = ([0; LENGTH], 0);
    while at < LENGTH {
        bytes[at] = text.as_bytes()[at];
        at += 1;
    }
    bytes
}

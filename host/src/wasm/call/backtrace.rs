//! Backtraces of guests: demangled, with file and line where the component has DWARF.

use std::fmt::Write;

use crate::bounds::{DEMANGLED, FRAME_NAME};
use crate::wasm::call::symbols::{SourceLocation, Symbols};

/// The most frames, including those of inlined functions.
const MAX_FRAMES: usize = 64;
/// The length above which a name is not demangled but cut: generated names may nest without bound.
const MAX_NAME: usize = 4_096;

/// Renders the frames of a guest, innermost first, with the place in the source on a line below. Frames without a name
/// or a place are counted together.
pub(in crate::wasm) fn backtrace(error: &wasmtime::Error, symbols: &Symbols) -> String {
    let Some(trace) = error.downcast_ref::<wasmtime::WasmBacktrace>() else { return String::new() };
    let mut lines = Lines::default();
    let offsets: Vec<Option<u64>> =
        trace.frames().iter().map(|frame| frame.module_offset().map(|at| at as u64)).collect();
    for (frame, places) in trace.frames().iter().zip(symbols.find(&offsets)) {
        let module = frame.module().name().map(cut);
        let module = module.as_deref();
        if places.is_empty() {
            // Without DWARF the name section is the only source of a name.
            lines.add(module, frame.func_name().map(demangle), None);
        }
        for SourceLocation { function, source } in places {
            let name = function.as_deref().or(frame.func_name()).map(demangle);
            lines.add(module, name, source);
        }
    }
    lines.finish()
}

#[derive(Default)]
struct Lines {
    text: String,
    next: usize,
    unnamed: usize,
}

impl Lines {
    fn add(&mut self, module: Option<&str>, name: Option<String>, source: Option<String>) {
        if self.next >= MAX_FRAMES {
            return;
        }
        if name.is_none() && source.is_none() {
            // Folded into one line: stripped components would fill the bound with lines that say nothing.
            self.unnamed += 1;
            return;
        }
        self.fold();
        let (number, name) = (self.next, name.unwrap_or_else(|| "?".to_owned()));
        self.next += 1;
        // Writing to a String cannot fail.
        let _ = match module {
            Some(module) => writeln!(self.text, "{number}: {module}!{name}"),
            None => writeln!(self.text, "{number}: {name}"),
        };
        if let Some(source) = source {
            let _ = writeln!(self.text, "     at {source}");
        }
    }

    /// Writes the number of unnamed frames since the last named one.
    fn fold(&mut self) {
        let unnamed = std::mem::take(&mut self.unnamed);
        if unnamed > 0 {
            let frames = if unnamed == 1 { "frame" } else { "frames" };
            let _ = writeln!(self.text, "{}: ({unnamed} {frames} without a name)", self.next);
            // Numbers stay those of the real stack, although the frames share a line.
            self.next += unnamed;
        }
    }

    fn finish(mut self) -> String {
        self.fold();
        self.text
    }
}

/// Returns the name of a function as in its source.
fn demangle(name: &str) -> String {
    if name.len() > MAX_NAME {
        return cut(name);
    }
    let mut text = BoundedText::default();
    if let Ok(rust) = rustc_demangle::try_demangle(name) {
        // The alternate form omits the hash. An error only means that the text is full.
        let _ = write!(text, "{rust:#}");
        return cut(&text.0);
    }
    // Rust's legacy names begin with `_ZN` as well, so that C++ is tried only after Rust.
    let cpp = name.starts_with("_Z").then(|| cpp_demangle::Symbol::new(name).ok()).flatten();
    match cpp.map(|symbol| symbol.structured_demangle(&mut text, &cpp_demangle::DemangleOptions::default())) {
        Some(Ok(())) => cut(&text.0),
        Some(Err(_)) | None => cut(name),
    }
}

/// A text that takes no more than [`DEMANGLED`] bytes: each reference of a mangled name to a part of it may double its
/// length.
#[derive(Default)]
struct BoundedText(String);

impl Write for BoundedText {
    fn write_str(&mut self, part: &str) -> std::fmt::Result {
        if self.0.len() + part.len() > DEMANGLED {
            return Err(std::fmt::Error);
        }
        self.0.push_str(part);
        Ok(())
    }
}

fn cut(name: &str) -> String {
    // Names are data of the component, and could otherwise control a terminal.
    let plain = name.chars().map(|c| if c.is_control() { '?' } else { c });
    let mut shown: String = plain.clone().take(FRAME_NAME).collect();
    if plain.count() > FRAME_NAME {
        shown.push_str("...");
    }
    shown
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_demangled() {
        for (name, expected) in [
            ("_ZN4core9panicking5panic17h0123456789abcdefE", "core::panicking::panic"),
            ("_RNvCs1234_7mycrate3foo", "mycrate::foo"),
            ("_ZN3foo3barEv", "foo::bar()"),
            ("_ZNSt6vectorIiSaIiEE9push_backERKi", "std::vector<int, std::allocator<int> >::push_back(int const&)"),
            ("plain_c_function", "plain_c_function"),
            ("_Znot mangled", "_Znot mangled"),
            ("js\u{1b}[2J", "js?[2J"),
        ] {
            assert_eq!(demangle(name), expected, "{name}");
        }
        let long = "x".repeat(10_000);
        assert_eq!(demangle(&long), format!("{}...", "x".repeat(FRAME_NAME)));
    }

    #[test]
    fn frames_without_a_name_are_counted_together() {
        let mut lines = Lines::default();
        for name in [None, None, Some("handle"), None, Some("main"), None] {
            lines.add(Some("guest"), name.map(str::to_owned), None);
        }
        let expected = "0: (2 frames without a name)\n2: guest!handle\n3: (1 frame without a name)\n4: guest!main\n\
                        5: (1 frame without a name)\n";
        assert_eq!(lines.finish(), expected);
    }

    #[test]
    fn long_backtraces_are_cut() {
        let mut lines = Lines::default();
        for _ in 0..1_000 {
            lines.add(None, Some("again".to_owned()), Some("a.c:1".to_owned()));
        }
        assert_eq!(lines.finish().lines().count(), 2 * MAX_FRAMES);
    }
}

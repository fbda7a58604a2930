//! The fuzz target of `caxton::fuzzing::route`.

#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| caxton::fuzzing::route(data));

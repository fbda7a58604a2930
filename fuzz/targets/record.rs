//! The fuzz target of `caxton::fuzzing::record`.

#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| caxton::fuzzing::record(data));

//! The fuzz target of `caxton::fuzzing::draft`.

#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| caxton::fuzzing::draft(data));

//! The fuzz target of `caxton::fuzzing::component`.

#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| caxton::fuzzing::component(data));

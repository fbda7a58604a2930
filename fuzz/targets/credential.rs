//! The fuzz target of `caxton::fuzzing::credential`.

#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| caxton::fuzzing::credential(data));

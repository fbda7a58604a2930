//! The fuzz target of `caxton::fuzzing::config_text`.

#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| caxton::fuzzing::config_text(data));

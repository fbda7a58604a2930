//! The fuzz target of `caxton::fuzzing::cron`.

#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| caxton::fuzzing::cron(data));

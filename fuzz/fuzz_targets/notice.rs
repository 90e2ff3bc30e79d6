//! Gives the fuzzer's input to the target `notice`.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| targets::notice(data));

//! Gives the fuzzer's input to the target `lines`.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| targets::lines(data));

//! Gives the fuzzer's input to the target `numbered`.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| targets::numbered(data));

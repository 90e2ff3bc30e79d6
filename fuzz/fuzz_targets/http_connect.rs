//! Gives the fuzzer's input to the target `http_connect`.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| targets::http_connect(data));

//! Gives the fuzzer's input to the target `delimited`.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| targets::delimited(data));

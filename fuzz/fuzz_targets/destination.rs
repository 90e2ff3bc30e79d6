//! Gives the fuzzer's input to the target `destination`.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| targets::destination(data));

//! Gives the fuzzer's input to the target `link`.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| targets::link(data));

//! Gives the fuzzer's input to the target `plan`.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| targets::plan(data));

//! Gives the fuzzer's input to the target `datagram`.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| targets::datagram(data));

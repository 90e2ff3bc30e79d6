//! Gives the fuzzer's input to the target `socks5`.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| targets::socks5(data));

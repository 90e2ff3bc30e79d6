//! Gives the fuzzer's input to the target `gossip`.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| targets::gossip(data));

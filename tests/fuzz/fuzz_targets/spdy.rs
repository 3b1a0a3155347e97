//! See `berth_fuzz::spdy`.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| berth_fuzz::spdy(data));

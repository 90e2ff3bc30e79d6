//! The guide, as a page of the documentation. Its examples are compiled and run.
#![doc = include_str!("../GUIDE.md")]

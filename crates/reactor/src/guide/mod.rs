//! The guide: how to write, test, tune and migrate services, one chapter a task.
//!
//! Each program in it is complete, and `cargo test --doc` compiles and runs it.
//!
//! | you want to | read |
//! |---|---|
//! | write your first server | [`first_service`] |
//! | know who calls you, when, and in which order | [`the_loop`] |
//! | end connections, slow down fast peers, and bound memory | [`ends_and_limits`] |
//! | speak a protocol of your own | [`own_codec`] |
//! | encrypt, or put a handshake in front | [`own_layer`] |
//! | watch a device, or any other descriptor | [`own_resource`] |
//! | choose, wrap or write the system call that waits | [`own_engine`] |
//! | read and write files without blocking the loop | [`files`] |
//! | keep every change that you acknowledged | [`write_ahead_log`] |
//! | test all this | [`testing`] |
//! | find what is slow, and use more threads | [`what_is_slow`] |
//! | decide whether to take tokio, mio or this | [`alternatives`] |
//! | move a program here | [`migration`] |
//! | handle signals, reload, and stop without a loss | [`daemon`] |

pub mod first_service {
    #![doc = include_str!("first_service.md")]
}

pub mod the_loop {
    #![doc = include_str!("the_loop.md")]
}

pub mod ends_and_limits {
    #![doc = include_str!("ends_and_limits.md")]
}

pub mod own_codec {
    #![doc = include_str!("own_codec.md")]
}

pub mod own_layer {
    #![doc = include_str!("own_layer.md")]
}

pub mod own_resource {
    #![doc = include_str!("own_resource.md")]
}

pub mod own_engine {
    #![doc = include_str!("own_engine.md")]
}

pub mod files {
    #![doc = include_str!("files.md")]
}

pub mod write_ahead_log {
    #![doc = include_str!("write_ahead_log.md")]
    #![doc = include_str!("../../examples/wal/log.rs")]
    #![doc = include_str!("write_ahead_log_tests.md")]
}

pub mod testing {
    #![doc = include_str!("testing.md")]
}

pub mod what_is_slow {
    #![doc = include_str!("what_is_slow.md")]
}

pub mod alternatives {
    #![doc = include_str!("alternatives.md")]
}

pub mod migration {
    //! How to move a program here.
    //!
    //! | from | read |
    //! |---|---|
    //! | io-reactor 0.5 | [`from_0_5`] |
    //! | radicle's fork of it | [`from_radicle`] |
    //! | netservices | [`from_netservices`] |
    //! | mio | [`from_mio`] |
    //! | tokio | [`from_tokio`] |

    pub mod from_0_5 {
        #![doc = include_str!("migration/from_0_5.md")]
    }

    pub mod from_radicle {
        #![doc = include_str!("migration/from_radicle.md")]
    }

    pub mod from_netservices {
        #![doc = include_str!("migration/from_netservices.md")]
    }

    pub mod from_mio {
        #![doc = include_str!("migration/from_mio.md")]
    }

    pub mod from_tokio {
        #![doc = include_str!("migration/from_tokio.md")]
    }
}

pub mod daemon {
    #![doc = include_str!("daemon.md")]
}

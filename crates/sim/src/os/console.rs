//! The standard streams of a node, and the programs of its child processes.

use std::rc::Rc;

use crate::{world::World, world::node::Node};

/// Standard streams and child processes, on Unix only.
impl World {
    /// Types bytes into a node's standard input, even before the node opens it.
    pub fn type_in(&mut self, node: impl Into<Node>, bytes: &[u8]) {
        self.state.borrow_mut().type_in(node.into().0, bytes);
    }

    /// Ends a node's standard input after the typed bytes.
    pub fn end_input(&mut self, node: impl Into<Node>) {
        self.state.borrow_mut().end_input(node.into().0);
    }

    /// Takes the bytes that a node wrote to its standard output and standard error since the last call.
    pub fn printed(&mut self, node: impl Into<Node>) -> (Vec<u8>, Vec<u8>) {
        let [out, errors] = &mut self.state.borrow_mut().consoles[node.into().0].printed;
        (std::mem::take(out), std::mem::take(errors))
    }

    /// Closes the readers of a node's standard output and standard error, so that a write meets a broken
    /// pipe.
    pub fn stop_listening(&mut self, node: impl Into<Node>) {
        self.state.borrow_mut().stop_listening(node.into().0);
    }

    /// Registers a program, which any node may start by this name. `make` gets its arguments. Other programs
    /// cannot be executed (ENOENT).
    pub fn program<P: crate::Program>(&mut self, name: &str, make: impl Fn(&[String]) -> P + 'static) {
        self.state.borrow_mut().children.know(name, Ok(Rc::new(move |args| Box::new(make(args)))));
    }

    /// Makes the execution of a program fail with this error number of Linux.
    pub fn refuse_program(&mut self, name: &str, number: i32) {
        self.state.borrow_mut().children.know(name, Err(number));
    }
}

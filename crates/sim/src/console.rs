//! What a test does with a node's standard streams, and the programs that its child processes are.

use std::rc::Rc;

use crate::{node::Node, world::World};

/// Standard streams and child processes. On Unix only.
impl World {
    /// Types bytes at a node: they are its standard input, also before it asks for it.
    pub fn type_in(&mut self, node: impl Into<Node>, bytes: &[u8]) {
        self.state.borrow_mut().type_in(node.into().0, bytes);
    }

    /// Ends a node's standard input, after what was typed.
    pub fn end_input(&mut self, node: impl Into<Node>) {
        self.state.borrow_mut().end_input(node.into().0);
    }

    /// What a node has written to its standard output and standard error since this was asked last.
    pub fn printed(&mut self, node: impl Into<Node>) -> (Vec<u8>, Vec<u8>) {
        let [out, errors] = &mut self.state.borrow_mut().consoles[node.into().0 as usize].printed;
        (std::mem::take(out), std::mem::take(errors))
    }

    /// Nobody reads a node's standard output and standard error any more: a write meets a broken pipe.
    pub fn stop_listening(&mut self, node: impl Into<Node>) {
        self.state.borrow_mut().stop_listening(node.into().0);
    }

    /// Makes a program known, which any node may start by this name; `make` is given its arguments. What is not
    /// known cannot be executed (ENOENT).
    pub fn program<P: crate::Program>(&mut self, name: &str, make: impl Fn(&[String]) -> P + 'static) {
        self.state.borrow_mut().children.know(name, Ok(Rc::new(move |args| Box::new(make(args)))));
    }

    /// Has a program be refused when it is to be executed, with an error's number as Linux has it.
    pub fn refuse_program(&mut self, name: &str, number: i32) {
        self.state.borrow_mut().children.know(name, Err(number));
    }
}

//! Plans of the simulator.

use sim::Plan;

/// Parses a plan, and parses its text again.
pub fn plan(data: &[u8]) {
    let Ok(text) = str::from_utf8(data) else { return };
    let Ok(plan) = text.parse::<Plan>() else { return };
    assert_eq!(plan.to_string().parse(), Ok(plan));
}

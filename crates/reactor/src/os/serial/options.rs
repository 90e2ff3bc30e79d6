//! The settings of a serial line: speed, frame and flow control.

use crate::options::with_changes;
use std::io;

use serial2::Settings;

/// The settings that a serial port gets when it opens.
///
/// ```
/// use reactor::serial::{Parity, SerialOptions, StopBits};
/// let options = SerialOptions::with(|options| {
///     options.speed = 4_800;
///     options.parity = Parity::Even;
/// });
/// assert_eq!(options.stop_bits, StopBits::One);
/// ```
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub struct SerialOptions {
    /// Bits per second, the same in both directions, at least 1. Use any number that the device supports. The
    /// real speed may differ from it by 2.5 %.
    pub speed: u32,
    /// The number of bits of a character.
    pub data_bits: DataBits,
    /// The parity bit.
    pub parity: Parity,
    /// The number of stop bits behind a character.
    pub stop_bits: StopBits,
    /// The method by which one side stops the other.
    pub flow_control: FlowControl,
    /// Refuses the port to other processes that open it later (EBUSY). The superuser can still open it.
    pub exclusive: bool,
}

with_changes!(SerialOptions);

impl SerialOptions {
    /// 115,200 bits per second, eight data bits, no parity, one stop bit, no flow control, exclusive.
    pub const DEFAULT: SerialOptions = SerialOptions {
        speed: 115_200,
        data_bits: DataBits::Eight,
        parity: Parity::None,
        stop_bits: StopBits::One,
        flow_control: FlowControl::None,
        exclusive: true,
    };

    /// Writes the options into the system's settings of the port, and makes everything else raw.
    pub(super) fn apply(&self, settings: &mut Settings) -> io::Result<()> {
        if self.speed == 0 {
            return Err(io::Error::new(io::ErrorKind::InvalidInput, "a speed of 0 hangs the line up"));
        }
        settings.set_raw();
        settings.set_baud_rate(self.speed)?;
        settings.set_char_size(match self.data_bits {
            DataBits::Five => serial2::CharSize::Bits5,
            DataBits::Six => serial2::CharSize::Bits6,
            DataBits::Seven => serial2::CharSize::Bits7,
            DataBits::Eight => serial2::CharSize::Bits8,
        });
        settings.set_parity(match self.parity {
            Parity::None => serial2::Parity::None,
            Parity::Odd => serial2::Parity::Odd,
            Parity::Even => serial2::Parity::Even,
        });
        settings.set_stop_bits(match self.stop_bits {
            StopBits::One => serial2::StopBits::One,
            StopBits::Two => serial2::StopBits::Two,
        });
        settings.set_flow_control(match self.flow_control {
            FlowControl::None => serial2::FlowControl::None,
            FlowControl::Software => serial2::FlowControl::XonXoff,
            FlowControl::Hardware => serial2::FlowControl::RtsCts,
        });
        Ok(())
    }
}

impl Default for SerialOptions {
    fn default() -> SerialOptions {
        SerialOptions::DEFAULT
    }
}

/// The number of bits of a character.
///
/// ```
/// assert_eq!(reactor::serial::SerialOptions::DEFAULT.data_bits, reactor::serial::DataBits::Eight);
/// ```
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum DataBits {
    /// 5
    Five,
    /// 6
    Six,
    /// 7
    Seven,
    /// 8
    Eight,
}

/// The parity bit of each character. The port drops a character with the wrong parity.
///
/// ```
/// assert_eq!(reactor::serial::SerialOptions::DEFAULT.parity, reactor::serial::Parity::None);
/// ```
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Parity {
    /// There is no parity bit.
    None,
    /// The number of ones is odd.
    Odd,
    /// The number of ones is even.
    Even,
}

/// The number of stop bits behind a character.
///
/// ```
/// assert_eq!(reactor::serial::SerialOptions::DEFAULT.stop_bits, reactor::serial::StopBits::One);
/// ```
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum StopBits {
    /// 1
    One,
    /// 2
    Two,
}

/// The method by which one side of a serial line stops the other.
///
/// ```
/// assert_eq!(reactor::serial::SerialOptions::DEFAULT.flow_control, reactor::serial::FlowControl::None);
/// ```
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum FlowControl {
    /// There is no flow control.
    None,
    /// The characters XON and XOFF, which then cannot be data.
    Software,
    /// The lines RTS and CTS.
    Hardware,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_option_is_found_again_in_the_settings() {
        let (_master, port) = serial2::SerialPort::pair().expect("a pair");
        let mut settings = port.get_configuration().expect("a terminal");
        let options = SerialOptions {
            speed: 19_200,
            data_bits: DataBits::Seven,
            parity: Parity::Even,
            stop_bits: StopBits::Two,
            flow_control: FlowControl::Hardware,
            ..SerialOptions::DEFAULT
        };
        options.apply(&mut settings).expect("each is known here");
        assert_eq!(settings.get_baud_rate().expect("known"), 19_200);
        assert_eq!(settings.get_char_size().expect("known"), serial2::CharSize::Bits7);
        assert_eq!(settings.get_parity().expect("known"), serial2::Parity::Even);
        assert_eq!(settings.get_stop_bits().expect("known"), serial2::StopBits::Two);
        assert_eq!(settings.get_flow_control().expect("known"), serial2::FlowControl::RtsCts);
        for (ours, theirs) in [
            (DataBits::Five, serial2::CharSize::Bits5),
            (DataBits::Six, serial2::CharSize::Bits6),
            (DataBits::Eight, serial2::CharSize::Bits8),
        ] {
            SerialOptions { data_bits: ours, ..options }.apply(&mut settings).expect("known");
            assert_eq!(settings.get_char_size().expect("known"), theirs);
        }
        SerialOptions { parity: Parity::Odd, ..options }.apply(&mut settings).expect("known");
        assert_eq!(settings.get_parity().expect("known"), serial2::Parity::Odd);
        let software = SerialOptions { flow_control: FlowControl::Software, ..options };
        software.apply(&mut settings).expect("known");
        assert_eq!(settings.get_flow_control().expect("known"), serial2::FlowControl::XonXoff);
    }

    #[test]
    fn a_speed_of_0_is_refused_since_it_would_hang_up() {
        let (_master, port) = serial2::SerialPort::pair().expect("a pair");
        let mut settings = port.get_configuration().expect("a terminal");
        let error = SerialOptions { speed: 0, ..SerialOptions::DEFAULT }.apply(&mut settings);
        assert_eq!(error.expect_err("refused").kind(), io::ErrorKind::InvalidInput);
    }
}

//! What a calculation costs, by the class of device that does it. The one place
//! where prices are set.

use crate::money::PicoUsd;
use raven_protocol::DeviceClass;

/// Every class of device.
pub const CLASSES: [DeviceClass; 3] =
    [DeviceClass::Phone, DeviceClass::Desktop, DeviceClass::Server];

/// The rate of a class. A calculation on a rented core costs about 20,000
/// pico-USD; a server's is worth as much, a desktop's a fifth less, since its
/// owner may close the page at any moment, and a phone's two fifths less, since
/// its link is slower as well.
pub const fn rate(device: DeviceClass) -> PicoUsd {
    match device {
        DeviceClass::Phone => PicoUsd(12_000),
        DeviceClass::Desktop => PicoUsd(16_000),
        DeviceClass::Server => PicoUsd(20_000),
    }
}

/// The lowest rate of any class.
pub const LOWEST: PicoUsd = rate(DeviceClass::Phone);
/// The highest: no work costs more.
pub const HIGHEST: PicoUsd = rate(DeviceClass::Server);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_class_is_outside_of_the_range() {
        let rates = CLASSES.map(rate);
        assert_eq!(rates.iter().min(), Some(&LOWEST));
        assert_eq!(rates.iter().max(), Some(&HIGHEST));
    }
}

//! What a calculation costs, by the class of device that does it. The one place
//! where prices are computed; the operator sets them, and a job keeps those that it
//! was quoted at.

use crate::event::Millis;
use crate::money::PicoUsd;
use crate::session::Session;
use raven_protocol::{Backend, DeviceClass};
use serde::{Deserialize, Serialize};

/// Every class of device.
pub const CLASSES: [DeviceClass; 3] =
    [DeviceClass::Phone, DeviceClass::Desktop, DeviceClass::Server];

/// The highest rate that may be set: fifty thousand times what a rented core costs.
pub const RATE_MAX: PicoUsd = PicoUsd(1_000_000_000);
/// The highest bonus: as much again.
pub const BONUS_THOUSANDTHS_MAX: u32 = 1_000;
/// The longest stay that a bonus may ask for: a day.
pub const STAY_MINUTES_MAX: u32 = 24 * 60;

/// What is on top of a rate, in thousandths of it. Each counts by itself, so that both
/// together are their sum.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Bonus {
    /// For work that a GPU has executed, which its visitor has allowed.
    pub gpu_thousandths: u32,
    /// For work of a session that has been open for `stay_minutes`.
    pub stay_thousandths: u32,
    pub stay_minutes: u32,
}

/// The rates of each class, and what is on top of them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Rates {
    pub phone: PicoUsd,
    pub desktop: PicoUsd,
    pub server: PicoUsd,
    pub bonus: Bonus,
}

impl Default for Rates {
    fn default() -> Self {
        Rates::FLAT
    }
}

impl Rates {
    /// Without any bonus. A calculation on a rented core costs about 20,000 pico-USD; a
    /// server's is worth as much, a desktop's a fifth less, since its owner may close
    /// the page at any moment, and a phone's two fifths less, since its link is slower
    /// as well.
    pub const FLAT: Rates = Rates {
        phone: PicoUsd(12_000),
        desktop: PicoUsd(16_000),
        server: PicoUsd(20_000),
        bonus: Bonus { gpu_thousandths: 0, stay_thousandths: 0, stay_minutes: 0 },
    };

    /// What a coordinator pays unless its operator says otherwise.
    pub const USUAL: Rates = Rates {
        bonus: Bonus { gpu_thousandths: 100, stay_thousandths: 50, stay_minutes: 10 },
        ..Rates::FLAT
    };

    /// The rate of a class, without a bonus.
    pub const fn of(&self, device: DeviceClass) -> PicoUsd {
        match device {
            DeviceClass::Phone => self.phone,
            DeviceClass::Desktop => self.desktop,
            DeviceClass::Server => self.server,
        }
    }

    /// What work is paid at that a session commits to now.
    pub(crate) fn paid(&self, session: &Session, now: Millis) -> PicoUsd {
        let profile = &session.profile;
        let open_ms = now.saturating_sub(session.opened);
        self.with_bonus(
            profile.device,
            profile.numeric.backend() == Backend::Gpu,
            open_ms >= Millis::from(self.bonus.stay_minutes) * 60_000,
        )
    }

    /// A class's rate with what is on top of it, rounded down.
    pub const fn with_bonus(&self, device: DeviceClass, is_gpu: bool, has_stayed: bool) -> PicoUsd {
        let gpu = if is_gpu { self.bonus.gpu_thousandths as u64 } else { 0 };
        let stay = if has_stayed { self.bonus.stay_thousandths as u64 } else { 0 };
        PicoUsd(self.of(device).0.saturating_mul(1_000 + gpu + stay) / 1_000)
    }

    /// The lowest rate of any work.
    pub fn lowest(&self) -> PicoUsd {
        CLASSES.map(|class| self.of(class)).into_iter().min().unwrap_or(self.server)
    }

    /// The highest: no work costs more.
    pub fn highest(&self) -> PicoUsd {
        let most = CLASSES.map(|class| self.with_bonus(class, true, true));
        most.into_iter().max().unwrap_or(self.server)
    }
}

/// The rate of a class among those without a bonus.
pub const fn rate(device: DeviceClass) -> PicoUsd {
    Rates::FLAT.of(device)
}

/// The lowest of them.
pub const LOWEST: PicoUsd = rate(DeviceClass::Phone);
/// The highest.
pub const HIGHEST: PicoUsd = rate(DeviceClass::Server);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_work_is_outside_of_the_range() {
        assert_eq!((Rates::FLAT.lowest(), Rates::FLAT.highest()), (LOWEST, HIGHEST));
        let bonus = Bonus { gpu_thousandths: 333, stay_thousandths: 1, stay_minutes: 5 };
        let odd = Rates { phone: PicoUsd(30_001), bonus, ..Rates::FLAT };
        for rates in [Rates::FLAT, Rates::USUAL, odd] {
            for class in CLASSES {
                for (is_gpu, has_stayed) in
                    [(false, false), (false, true), (true, false), (true, true)]
                {
                    let rate = rates.with_bonus(class, is_gpu, has_stayed);
                    assert!((rates.lowest()..=rates.highest()).contains(&rate), "{rates:?}");
                    assert!(rate >= rates.of(class));
                }
            }
        }
        assert_eq!(Rates::USUAL.highest(), PicoUsd(23_000));
        assert_eq!(odd.highest(), PicoUsd(40_021), "30,001 and 334 thousandths, rounded down");
        let most = Rates { phone: PicoUsd(u64::MAX), ..odd };
        assert!(most.highest() > PicoUsd(0), "and none wraps around");
    }
}

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

/// What a session must be seen to deliver before it is paid as what it says it is, in
/// Mflop/s of all its workers together. Zero asks for nothing.
///
/// What a device is nobody can know; what it does can be measured. A share is what a
/// session says of itself as well, so that only the lower class is judged by it: whoever
/// says a small one and uses more is not paid as a server for that.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Least {
    /// Of a desktop at full share: one that gives a twentieth need deliver a twentieth.
    pub desktop_mflops: u32,
    /// Of a server, whatever its share.
    pub server_mflops: u32,
    /// Of a GPU, whatever its share, before there is a bonus for it.
    pub gpu_mflops: u32,
}

/// The highest that may be asked for: 10 Tflop/s.
pub const LEAST_MFLOPS_MAX: u32 = 10_000_000;

/// The rates of each class, and what is on top of them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Rates {
    pub phone: PicoUsd,
    pub desktop: PicoUsd,
    pub server: PicoUsd,
    pub bonus: Bonus,
    /// Jobs that are older than these bounds have none.
    #[serde(default)]
    pub least: Least,
}

impl Default for Rates {
    fn default() -> Self {
        Rates::FLAT
    }
}

impl Rates {
    /// Without any bonus or bound. A calculation on a rented core costs about 20,000 pico-USD; a
    /// server's is worth as much, a desktop's a fifth less, since its owner may close
    /// the page at any moment, and a phone's two fifths less, since its link is slower
    /// as well.
    pub const FLAT: Rates = Rates {
        phone: PicoUsd(12_000),
        desktop: PicoUsd(16_000),
        server: PicoUsd(20_000),
        bonus: Bonus { gpu_thousandths: 0, stay_thousandths: 0, stay_minutes: 0 },
        least: Least { desktop_mflops: 0, server_mflops: 0, gpu_mflops: 0 },
    };

    /// What a coordinator pays unless its operator says otherwise. A phone's processor
    /// delivers some 4 Gflop/s, a desktop's 10, a server's 40, and the slowest GPU that is
    /// worth its power several times what a phone does.
    pub const USUAL: Rates = Rates {
        bonus: Bonus { gpu_thousandths: 100, stay_thousandths: 50, stay_minutes: 10 },
        least: Least { desktop_mflops: 1_000, server_mflops: 8_000, gpu_mflops: 16_000 },
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

    /// What work is paid at that a session commits to now: the lower of what it says it is
    /// and of what bears it out, since a higher class need not be the dearer one.
    pub(crate) fn paid(&self, session: &Session, now: Millis) -> PicoUsd {
        let is_gpu = session.profile.numeric.backend() == Backend::Gpu && self.is_gpu(session);
        let open_ms = now.saturating_sub(session.opened);
        let has_stayed = open_ms >= Millis::from(self.bonus.stay_minutes) * 60_000;
        let of = |class| self.with_bonus(class, is_gpu, has_stayed);
        of(session.profile.device).min(of(self.borne_out(session)))
    }

    /// The highest class that a session may be paid as: it has delivered as much, and who
    /// comes through a page is a visitor, and no server. As long as it has done no task of
    /// a calculation or more nothing speaks against what it says.
    fn borne_out(&self, session: &Session) -> DeviceClass {
        let profile = &session.profile;
        let most = match profile.site {
            Some(_) => profile.device.min(DeviceClass::Desktop),
            None => profile.device,
        };
        let delivered = &session.delivered;
        let is_borne_out = |class: &DeviceClass| match class {
            DeviceClass::Phone => true,
            _ if !delivered.is_known() => true,
            DeviceClass::Desktop => delivered.reaches_at_share(self.least.desktop_mflops),
            DeviceClass::Server => delivered.reaches(self.least.server_mflops),
        };
        let mut from_above = CLASSES.into_iter().rev().filter(|class| *class <= most);
        from_above.find(is_borne_out).unwrap_or(DeviceClass::Phone)
    }

    /// Whether a session that says it is a GPU delivers what one does. A processor comes to
    /// results within a GPU's bounds as well, so that they tell nothing; and a bonus can wait
    /// for the first task that does.
    fn is_gpu(&self, session: &Session) -> bool {
        let least = self.least.gpu_mflops;
        least == 0 || (session.delivered.is_known() && session.delivered.reaches(least))
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

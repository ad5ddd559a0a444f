//! What is known of an identity.

use crate::server::Server;
use raven_engine::{ContributorId, Identity, Trust};
use raven_protocol::{Backend, DeviceClass};

#[test]
fn an_exclusion_is_final() {
    let server = Server::start();
    let store = &server.app.store;
    let who = Identity {
        contributor: ContributorId([7; 32]),
        device: DeviceClass::Phone,
        backend: Backend::Gpu,
    };
    let other = Identity { backend: Backend::Cpu, ..who };
    let trust = |who| server.runtime.block_on(store.trust_of(&who)).expect("read");
    let set = |who, trust| {
        server.runtime.block_on(store.set_trust(&[(who, trust)])).expect("stored");
    };
    assert_eq!(trust(who), Trust::default());
    set(who, Trust::Agreed { results: 9, refereed: 1 });
    set(who, Trust::default());
    assert_eq!(trust(who), Trust::default(), "whoever was doubted is new again, also later");
    set(who, Trust::Excluded);
    set(who, Trust::Agreed { results: 10, refereed: 1 });
    assert_eq!(trust(who), Trust::Excluded);
    assert_eq!(trust(other), Trust::default(), "a GPU's lie says nothing of the processor");
    set(other, Trust::Excluded);
    let elsewhere = Identity { device: DeviceClass::Server, ..other };
    assert_eq!(trust(elsewhere), Trust::Excluded, "a processor's lie is its owner's");
}

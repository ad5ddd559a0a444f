//! Settlement by whoever runs the coordinator, on its command line.

use super::{
    ADDRESS_BYTES_MAX, Decision, Deposit, Request, Settlement, SettlementError, Withdrawal,
    WithdrawalId,
};
use crate::store::{Book, Store};
use crate::time::UnixMs;
use futures_util::future::BoxFuture;
use raven_engine::ledger::{Account, Added};
use raven_engine::money::NanoUsd;

/// Pays nothing itself: `coordinator withdrawals` says what was paid.
#[derive(Clone, Debug)]
pub struct Manual {
    store: Store,
    /// What a payment costs outside has to be worth it.
    least: NanoUsd,
}

impl Manual {
    /// What is less than `least` is not paid out.
    pub fn new(store: Store, least: NanoUsd) -> Self {
        Manual { store, least }
    }

    fn check(&self, request: &Request) -> Result<(), SettlementError> {
        let account = request.account;
        if !matches!(account, Account::Requester(_) | Account::Site(_) | Account::Contributor(_)) {
            return Err(SettlementError::NotPayable { account });
        }
        if request.book == Book::Test {
            return Err(SettlementError::PlayMoney);
        }
        let found = request.amount;
        if found < self.least {
            return Err(SettlementError::BelowLeast { found, least: self.least });
        }
        let is_printable = |byte: u8| byte.is_ascii_graphic() || byte == b' ';
        let address = &request.address;
        let is_good = address.len() <= ADDRESS_BYTES_MAX
            && !address.trim().is_empty()
            && address.bytes().all(is_printable);
        if is_good { Ok(()) } else { Err(SettlementError::Address) }
    }
}

impl Settlement for Manual {
    fn least(&self) -> NanoUsd {
        self.least
    }

    fn deposit(&self, deposit: Deposit) -> BoxFuture<'_, Result<Added, SettlementError>> {
        Box::pin(async move {
            let Deposit { owner, amount, payment } = deposit;
            self.store.deposit(owner, amount, &payment).await
        })
    }

    fn request(
        &self,
        request: Request,
        now: UnixMs,
    ) -> BoxFuture<'_, Result<Withdrawal, SettlementError>> {
        Box::pin(async move {
            self.check(&request)?;
            self.store.hold_withdrawal(&request, now).await
        })
    }

    fn decide(
        &self,
        id: WithdrawalId,
        decision: Decision,
        note: Option<String>,
        now: UnixMs,
    ) -> BoxFuture<'_, Result<Withdrawal, SettlementError>> {
        Box::pin(async move { self.store.end_withdrawal(id, decision, note, now).await })
    }

    fn cancel(
        &self,
        of: (Book, Account),
        id: WithdrawalId,
        now: UnixMs,
    ) -> BoxFuture<'_, Result<Withdrawal, SettlementError>> {
        Box::pin(self.store.cancel_withdrawal(of, id, now))
    }

    fn expire(&self, now: UnixMs) -> BoxFuture<'_, Result<(), SettlementError>> {
        Box::pin(self.store.expire_withdrawals(now))
    }
}

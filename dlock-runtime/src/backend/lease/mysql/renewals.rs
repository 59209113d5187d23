//! Renewing leases, without waiting for rows that somebody has locked.

use std::time::Duration;

use mysql_async::{Row as MyRow, Value};

use super::sql::{Locked, waiting_for};
use super::{MySqlStore, column, path, read};
use crate::backend::lease::shared::micros;
use crate::backend::lease::store::{Answer, Renewal, Renewed, StoreError};
use crate::error::InitError;
use crate::key::Mode;

impl MySqlStore {
    /// Whether the server can do without waiting for rows that somebody has locked.
    pub(super) async fn can_do_without(&self) -> Result<bool, InitError> {
        match self.statements.locked {
            Locked::Refused => self.can_wait_for(0).await,
            Locked::Skipped | Locked::Waited => self.can_run(&self.statements.renew(1)).await,
        }
    }

    /// Whether a statement may wait for a locked row for so many seconds. MariaDB before 10.3 takes 0 for 1, or refuses it.
    pub(super) async fn can_wait_for(&self, seconds: u64) -> Result<bool, InitError> {
        let asked = format!("{} SELECT @@innodb_lock_wait_timeout", waiting_for(seconds));
        match self.rows(&self.side, asked, Vec::new()).await {
            Ok(rows) => Ok(
                matches!(rows.first().map(|row| column::<u64>(row, 0)), Some(Ok(set)) if set == seconds),
            ),
            // An error of syntax, or a value that it does not know.
            Err(StoreError::Refused { code, .. }) if code == "1064" || code == "1231" => Ok(false),
            Err(error) => Err(self.unreachable(&error)),
        }
    }

    /// Whether the server knows the words of a renewal, which finds nothing.
    pub(super) async fn can_run(&self, renew: &str) -> Result<bool, InitError> {
        let nobody = Renewal {
            name: "".into(),
            owner: "".into(),
            token: 0,
            mode: Mode::Exclusive,
            ttl: Duration::ZERO,
        };
        let params = self
            .statements
            .ordered(self.some(&[&nobody]), vec![0.into(), 0.into()]);
        match self.change(&self.side, renew.to_owned(), params).await {
            Ok(_) | Err(StoreError::Again { .. }) => Ok(true),
            // An error of syntax: it does not know the words.
            Err(StoreError::Refused { code, .. }) if code == "1064" => Ok(false),
            Err(error) => Err(self.unreachable(&error)),
        }
    }

    fn unreachable(&self, error: &StoreError) -> InitError {
        InitError::Unreachable {
            endpoint: self.side.link.opener().endpoint.address.to_string(),
            reason: error.to_string(),
            source: None,
        }
    }

    /// Renewals wait for rows as takes do.
    pub(super) fn wait_for_rows(&mut self) {
        self.statements.wait_for_rows();
        self.side.answers_within = self.main.answers_within;
    }

    /// Renews what stands, all exclusive leases of one ttl in a statement.
    pub(super) async fn renew_all(&self, renewals: &[Renewal]) -> Answer<Vec<Renewed>> {
        let mut outcomes = vec![Renewed::Locked; renewals.len()];
        let writers = |renewal: &Renewal| renewal.mode == Mode::Exclusive;
        let mut ttls: Vec<Duration> = renewals
            .iter()
            .filter(|renewal| writers(renewal))
            .map(|renewal| renewal.ttl)
            .collect();
        ttls.sort_unstable();
        ttls.dedup();
        for ttl in ttls {
            let these = || {
                let all = renewals.iter().enumerate();
                all.filter(|(_, renewal)| writers(renewal) && renewal.ttl == ttl)
            };
            let group: Vec<&Renewal> = these().map(|(_, renewal)| renewal).collect();
            let renewed = self.renew_writers(&group, ttl).await?;
            for ((index, _), renewed) in these().zip(renewed) {
                set(&mut outcomes, index, renewed);
            }
        }
        for (renewal, outcome) in renewals.iter().zip(&mut outcomes) {
            if !writers(renewal) {
                *outcome = self.renew_reader(renewal).await?;
            }
        }
        Ok(outcomes)
    }

    /// Renews exclusive leases of one ttl. The count says only how many were renewed: when some were not, those that are lost
    /// are found and left out, and the others halved until it says which ones somebody has locked.
    async fn renew_writers(&self, renewals: &[&Renewal], ttl: Duration) -> Answer<Vec<Renewed>> {
        let mut outcomes = vec![Renewed::Locked; renewals.len()];
        let mut rest: Vec<Vec<(usize, &Renewal)>> =
            vec![renewals.iter().copied().enumerate().collect()];
        while let Some(some) = rest.pop() {
            if some.is_empty() {
                continue;
            }
            let renewals: Vec<&Renewal> = some.iter().map(|(_, renewal)| *renewal).collect();
            let ttls = vec![micros(ttl).into(), micros(ttl).into()];
            let params = self.statements.ordered(self.some(&renewals), ttls);
            let renew = self.statements.renew(renewals.len());
            let renewed = match self.change(&self.side, renew, params).await {
                Ok((count, _)) => usize::try_from(count).unwrap_or(0),
                // Undone, for one of the rows, or refused since somebody has locked it.
                Err(StoreError::Again { .. }) => 0,
                Err(error) => return Err(error),
            };
            if renewed == some.len() {
                for (index, _) in some {
                    set(&mut outcomes, index, Renewed::Yes);
                }
                continue;
            }
            let standing = self.statements.standing(renewals.len());
            let rows = self
                .rows(&self.side, standing, self.some(&renewals))
                .await?;
            let rows: Vec<_> = rows.iter().map(identity).collect::<Answer<_>>()?;
            let stands =
                |(_, renewal): &(usize, &Renewal)| rows.iter().any(|row| is_of(row, renewal));
            let (standing, lost): (Vec<_>, Vec<_>) = some.into_iter().partition(stands);
            for (index, _) in &lost {
                set(&mut outcomes, *index, Renewed::Lost);
            }
            if !lost.is_empty() {
                rest.push(standing);
            } else if standing.len() > 1 {
                let (left, right) = standing.split_at(standing.len() / 2);
                rest.extend([left.to_vec(), right.to_vec()]);
            }
        }
        Ok(outcomes)
    }

    async fn renew_reader(&self, renewal: &Renewal) -> Answer<Renewed> {
        let (token, ends) = (path(&renewal.owner, "[0]"), path(&renewal.owner, "[1]"));
        let ttl = micros(renewal.ttl);
        let [namespace, name] = self.named(&renewal.name);
        let which = vec![namespace, name, token, renewal.token.into(), ends.clone()];
        let set = vec![ends.clone(), ends, ttl.into(), ttl.into(), ttl.into()];
        let params = self.statements.ordered(which, set);
        let renew = self.statements.renew_reader();
        match self.change(&self.side, renew, params).await {
            Ok((1, _)) => return Ok(Renewed::Yes),
            Ok(_) => {}
            Err(StoreError::Again { .. }) => return Ok(Renewed::Locked),
            Err(error) => return Err(error),
        }
        let named = self.named(&renewal.name).to_vec();
        let rows = self.rows(&self.side, self.statements.read(), named).await?;
        let row = rows.first().map(read).transpose()?;
        let stands = row.is_some_and(|row| {
            let reader = row.readers.get(&*renewal.owner);
            reader.is_some_and(|reader| reader.0 == renewal.token && reader.1 > row.now)
        });
        Ok(if stands {
            Renewed::Locked
        } else {
            Renewed::Lost
        })
    }

    fn some(&self, renewals: &[&Renewal]) -> Vec<Value> {
        let mut params: Vec<Value> = vec![self.namespace.as_bytes().into()];
        params.extend(
            renewals
                .iter()
                .map(|renewal| renewal.name.as_bytes().into()),
        );
        for renewal in renewals {
            params.push(renewal.owner.as_bytes().into());
            params.push(renewal.token.into());
        }
        params
    }
}

/// Name, owner and token of a row.
type Identity = (Vec<u8>, Vec<u8>, u64);

fn identity(row: &MyRow) -> Answer<Identity> {
    Ok((column(row, 0)?, column(row, 1)?, column(row, 2)?))
}

fn set(outcomes: &mut [Renewed], index: usize, renewed: Renewed) {
    if let Some(outcome) = outcomes.get_mut(index) {
        *outcome = renewed;
    }
}

fn is_of(row: &Identity, renewal: &Renewal) -> bool {
    row.0 == renewal.name.as_bytes() && row.1 == renewal.owner.as_bytes() && row.2 == renewal.token
}

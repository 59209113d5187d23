//! Taking a lock with a fencing token: on a session of its own, which counts the token once it holds the lock.
//!
//! Tokens must grow in the order in which the lock is held, so **the session that holds the lock raises the counter
//! itself**, in one statement that is a transaction of its own, sent after the grant. A server frees the locks of a
//! session only when the session's transaction has ended, by a commit or undone: so whoever gets the lock next finds
//! the count of each holder before it there, or never to come. Raised on any other connection, such as the keeper, the
//! statement of a holder whose session was killed could be delayed, commit behind its successor's, and leave the old
//! holder with the greater token.
//!
//! A session of its own also because a count can wait, for a transaction that has checked a token or for a standby
//! that has to confirm the commit: the keeper, with all its locks, must not stand behind that.

use std::future::Future;
use std::pin::{Pin, pin};
use std::sync::Arc;

use tokio::time;

use super::{Attempt, ENDS_BY_ITSELF, INTERRUPTED_WITHIN, ROUNDED_UP_BY, Step};
use crate::backend::session::driver::{Counted, Driver, DriverError, Session};
use crate::backend::session::held::Room;
use crate::backend::session::live::Live;
use crate::backend::session::{gone, hold};
use crate::backend::{Progress, Taken, Trouble};
use crate::clock::Moment;

/// Why a count has no answer.
enum Cut {
    CalledOff,
    Ended(Arc<str>),
    Overdue,
}

impl<D: Driver> Attempt<'_, D> {
    /// One try on a connection of its own. `true`: somebody else holds the lock.
    pub(super) async fn try_apart(&mut self) -> Step<bool> {
        let room = self.room().await?;
        let (waiters, errand) = (&self.locks.waiters, self.errand);
        // Not a permit to wait: those who wait would keep off who finds the lock free.
        let permit = tokio::select! {
            biased;
            () = errand.called_off() => return Err(Taken::CalledOff),
            permit = waiters.permit_to_try() => permit,
        };
        let live = tokio::select! {
            biased;
            () = errand.called_off() => return Err(Taken::CalledOff),
            live = waiters.check_out() => live,
        };
        let live = match live {
            Ok(live) => live,
            Err(error) => {
                drop(permit);
                self.trouble(error.into()).await?;
                return Ok(false);
            }
        };
        let sent = Moment::now();
        // To its end, as on the keeper.
        match live.try_lock(&errand.key, errand.want.mode).await {
            Ok(true) => {
                drop(permit);
                self.granted(live, sent, room).await?;
                Ok(false)
            }
            Ok(false) => {
                live.confirm(sent);
                waiters.put_back(live);
                self.reconnected = false;
                errand.report(Progress::Busy);
                Ok(true)
            }
            Err(error) => {
                live.lose(format!("a try failed: {error}"));
                if matches!(error, DriverError::Gone { .. }) {
                    // What has ended one may have ended them all, and each would cost a try.
                    waiters.close_idle("another connection was found dead");
                }
                drop(permit);
                self.failed(error).await?;
                Ok(false)
            }
        }
    }

    /// The session holds the lock: counts its token, and hands both over. On every other way out the lock goes back first.
    pub(super) async fn count(&mut self, live: Arc<Live<D::Session>>, room: Room) -> Step<()> {
        if self.errand.is_called_off() {
            self.free(live).await;
            return Err(Taken::CalledOff);
        }
        let waited = !matches!(self.errand.progress(), Progress::Asked);
        self.errand.report(Progress::Counting { waited });
        // The driver bounds the wait for a row by the same; what lasts longer is the commit.
        let overdue = self.locks.limits.answer() + ROUNDED_UP_BY;
        let sent = Moment::now();
        let counted = {
            let _quiet = live.without_heartbeat();
            let mut counting = pin!(live.session().count(&self.errand.key));
            let cut = tokio::select! {
                biased;
                counted = &mut counting => Ok(counted),
                reason = live.vitality().ended() => Err(Cut::Ended(reason)),
                () = time::sleep(overdue) => Err(Cut::Overdue),
                () = self.errand.called_off() => Err(Cut::CalledOff),
            };
            match cut {
                Ok(counted) => counted,
                Err(cut) => return self.cut_off(&live, counting, cut).await,
            }
        };
        match counted {
            Ok(Counted::Token(token)) => {
                live.confirm(sent);
                // The answer may have come while this process was stopped.
                if let Some(reason) = live.vitality().lost() {
                    live.lose(reason.clone());
                    return self.failed(gone(&reason)).await;
                }
                let vitality = live.vitality().fenced(token);
                let home = Some(self.locks.waiters.clone());
                Err(hold(live, vitality, self.errand, home, room))
            }
            Ok(Counted::Kept { reason }) => {
                live.confirm(sent);
                self.free(live).await;
                drop(room);
                let reason = format!("the fencing token could not be counted: {reason}");
                self.trouble(Trouble {
                    reason,
                    source: None,
                })
                .await
            }
            Err(error @ DriverError::Gone { .. }) => {
                live.lose(format!("the fencing token could not be counted: {error}"));
                self.failed(error).await
            }
            Err(error @ DriverError::Refused { .. }) => {
                self.free(live).await;
                self.failed(error).await
            }
        }
    }

    /// The count has no answer, and shall have none: it is ended on the server, the lock freed, and the connection closed.
    /// The token, if it was counted, is nobody's: a gap.
    async fn cut_off(
        &mut self,
        live: &Arc<Live<D::Session>>,
        mut counting: Pin<&mut impl Future<Output = Result<Counted, DriverError>>>,
        cut: Cut,
    ) -> Step<()> {
        if let Cut::CalledOff = cut
            && let Ok(ended) = time::timeout(ENDS_BY_ITSELF, &mut counting).await
        {
            match ended {
                Err(error @ DriverError::Gone { .. }) => {
                    live.lose(format!("the fencing token could not be counted: {error}"));
                }
                Ok(_) | Err(DriverError::Refused { .. }) => self.free(live.clone()).await,
            }
            return Err(Taken::CalledOff);
        }
        let freed = async {
            // Closing the connection alone would leave the lock to a server that waits on, for a standby that is gone.
            self.interrupt(live).await.ok()?;
            let _ = counting.await;
            live.unlock(&self.errand.key, self.errand.want.mode)
                .await
                .ok()
        };
        let _ = time::timeout(INTERRUPTED_WITHIN, freed).await;
        // The interruption may have come too late, and would hit the next statement.
        live.lose("the fencing token was not counted in time");
        match cut {
            Cut::CalledOff => Err(Taken::CalledOff),
            Cut::Ended(reason) => self.failed(gone(&reason)).await,
            Cut::Overdue => {
                let reason = "the server did not count the fencing token in time".to_owned();
                self.trouble(Trouble {
                    reason,
                    source: None,
                })
                .await
            }
        }
    }

    /// Gives the lock back; a release that fails closes the connection.
    async fn free(&self, live: Arc<Live<D::Session>>) {
        let (key, mode) = (&self.errand.key, self.errand.want.mode);
        if live.unlock(key, mode).await.is_ok() {
            self.locks.waiters.put_back(live);
        }
    }
}

//! What is broken, and what each fault may excuse.

use std::fmt;

use serde::{Deserialize, Serialize};

/// A kind of fault.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub enum Fault {
    /// A worker is killed (SIGKILL), and another takes its place.
    Kill,
    /// A worker is stopped (SIGSTOP) for a third of the limit.
    ShortPause,
    /// A worker is stopped for twice the limit.
    LongPause,
    /// The administrator ends a session of a worker.
    EndSession,
    /// All connections of a worker are reset, on both sides.
    Reset,
    /// The network of a worker forwards nothing for a third of the limit.
    ShortStall,
    /// The network of a worker forwards nothing for twice the limit.
    LongStall,
    /// The connections of a worker never forward anything again; new ones work.
    HalfOpen,
    /// The server's answers to a worker are late, and then there is silence for twice the limit.
    LateThenSilent,
    /// The server's answers to a worker are late, and then the worker is stopped until just after the limit, counted from
    /// the beginning: who counts from the answers still vouches then for what the server has freed.
    LateThenPaused,
    /// Every piece of a worker's stream is held back for a while.
    Delay,
    /// A worker's stream comes in pieces of a few bytes.
    Split,
    /// The connections of a worker are reset in the middle of an answer.
    CutAnswer,
    /// The server is stopped in good order, and started again.
    Restart,
    /// The server is killed, and started again.
    Crash,
    /// The server is frozen for a third of the limit.
    ShortFreeze,
    /// The server is frozen for twice the limit.
    LongFreeze,
    /// Somebody takes the whole lock table.
    TableFull,
    /// The server accepts no more connections.
    NoConnections,
    /// The wall clock of a worker, which is wrong by hours from the start, jumps by hours.
    ClockJump,
    /// Another program writes to the file of `SQLite` for a third of the limit.
    ShortWrite,
    /// Another program writes to the file of `SQLite` for twice the limit.
    LongWrite,
    /// The primary is killed, and the standby takes its place behind the same name.
    Failover,
    /// The standby, for which every commit waits, is frozen for twice the limit.
    FrozenStandby,
    /// A node of the cluster is frozen until the others have excluded it.
    FrozenNode,
    /// A node of the cluster is killed, and joins again.
    KilledNode,
    /// All nodes but one are frozen until that one has lost the majority.
    QuorumLoss,
}

impl Fault {
    /// All of them.
    pub const ALL: [Fault; 27] = [
        Fault::Kill,
        Fault::ShortPause,
        Fault::LongPause,
        Fault::EndSession,
        Fault::Reset,
        Fault::ShortStall,
        Fault::LongStall,
        Fault::HalfOpen,
        Fault::LateThenSilent,
        Fault::LateThenPaused,
        Fault::Delay,
        Fault::Split,
        Fault::CutAnswer,
        Fault::Restart,
        Fault::Crash,
        Fault::ShortFreeze,
        Fault::LongFreeze,
        Fault::TableFull,
        Fault::NoConnections,
        Fault::ClockJump,
        Fault::ShortWrite,
        Fault::LongWrite,
        Fault::Failover,
        Fault::FrozenStandby,
        Fault::FrozenNode,
        Fault::KilledNode,
        Fault::QuorumLoss,
    ];

    /// The name on the command line.
    pub fn name(self) -> &'static str {
        match self {
            Fault::Kill => "kill",
            Fault::ShortPause => "short-pause",
            Fault::LongPause => "long-pause",
            Fault::EndSession => "end-session",
            Fault::Reset => "reset",
            Fault::ShortStall => "short-stall",
            Fault::LongStall => "long-stall",
            Fault::HalfOpen => "half-open",
            Fault::LateThenSilent => "late-then-silent",
            Fault::LateThenPaused => "late-then-paused",
            Fault::Delay => "delay",
            Fault::Split => "split",
            Fault::CutAnswer => "cut-answer",
            Fault::Restart => "restart",
            Fault::Crash => "crash",
            Fault::ShortFreeze => "short-freeze",
            Fault::LongFreeze => "long-freeze",
            Fault::TableFull => "table-full",
            Fault::NoConnections => "no-connections",
            Fault::ClockJump => "clock-jump",
            Fault::ShortWrite => "short-write",
            Fault::LongWrite => "long-write",
            Fault::Failover => "failover",
            Fault::FrozenStandby => "frozen-standby",
            Fault::FrozenNode => "frozen-node",
            Fault::KilledNode => "killed-node",
            Fault::QuorumLoss => "quorum-loss",
        }
    }

    /// The fault of a name.
    pub fn named(name: &str) -> Option<Fault> {
        Fault::ALL.into_iter().find(|fault| fault.name() == name)
    }

    /// Whether it is aimed at one worker; the others meet everybody.
    pub fn is_aimed(self) -> bool {
        !matches!(
            self,
            Fault::Restart
                | Fault::Crash
                | Fault::ShortFreeze
                | Fault::LongFreeze
                | Fault::TableFull
                | Fault::NoConnections
                | Fault::ShortWrite
                | Fault::LongWrite
                | Fault::Failover
                | Fault::FrozenStandby
                | Fault::FrozenNode
                | Fault::KilledNode
                | Fault::QuorumLoss
        )
    }

    /// Whether the server itself ends sessions by it. That frees their locks at once, before any holder can know:
    /// the stated limit of session locks.
    pub fn ends_sessions(self) -> bool {
        matches!(
            self,
            Fault::EndSession
                | Fault::Reset
                | Fault::CutAnswer
                | Fault::Restart
                | Fault::Crash
                | Fault::Failover
        )
    }

    /// Whether the server cannot be asked from its beginning to its end.
    pub fn is_outage(self) -> bool {
        matches!(
            self,
            Fault::LongStall | Fault::LongFreeze | Fault::Restart | Fault::Crash | Fault::Failover
        )
    }

    /// Whether it stops the worker itself.
    pub fn is_pause(self) -> bool {
        matches!(
            self,
            Fault::ShortPause | Fault::LongPause | Fault::LateThenPaused
        )
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

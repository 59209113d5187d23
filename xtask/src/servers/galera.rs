//! A Galera cluster of three MariaDB nodes.

use std::{
    ffi::OsString,
    fs,
    path::{Path, PathBuf},
    thread,
};

use anyhow::{Context, Result, anyhow, bail};

use super::{
    Kind, Server,
    packages::{Bundle, unpacked},
    place::{self, Unprivileged},
    programs::Programs,
    setup::Plan,
    template,
};
use crate::ports;

/// How many nodes there are: the least of which a majority can be left.
const NODES: usize = 3;

/// A cluster of a test's own. Dropped, it is stopped and removed.
///
/// Nodes are numbered from 0. Each is a [`Server`] of [`Kind::MariaDb`], whose URL leads to this node alone.
#[derive(Debug)]
pub struct Galera {
    nodes: Vec<Server>,
}

impl Galera {
    /// Starts three nodes, and returns when all of them are in the cluster and take writes; about five seconds, the first
    /// time longer.
    ///
    /// # Errors
    ///
    /// When the packages cannot be had, or a node does not start; the end of its log is part of the message then.
    pub fn start() -> Result<Self> {
        let ground = Ground::prepare()?;
        let seed = ground.seed()?;
        let ports = (0..NODES)
            .map(|_| NodePorts::choose())
            .collect::<Result<Vec<_>>>()?;
        let plan = |index: usize| ground.plan(Some(&seed), index, &ports);
        let mut first = plan(0)?;
        first.first_arguments.push("--wsrep-new-cluster".into());
        let first = Server::start_planned(first, "-node0")?;
        let others = thread::scope(|scope| {
            let starting: Vec<_> = (1..NODES)
                .map(|index| {
                    scope.spawn(move || {
                        Server::start_planned(plan(index)?, &format!("-node{index}"))
                    })
                })
                .collect();
            starting
                .into_iter()
                .map(|node| {
                    node.join()
                        .unwrap_or_else(|_| Err(anyhow!("starting a node panicked")))
                })
                .collect::<Result<Vec<_>>>()
        })?;
        let mut nodes = vec![first];
        nodes.extend(others);
        let cluster = Self { nodes };
        for index in 0..NODES {
            cluster.wait_until_synced(index)?;
            cluster.wait_for_size(index, NODES)?;
        }
        Ok(cluster)
    }

    /// A node.
    ///
    /// # Panics
    ///
    /// When there is no node of that number.
    pub fn node(&self, index: usize) -> &Server {
        &self.nodes[index]
    }

    /// The URL of the application's account on a node.
    ///
    /// # Panics
    ///
    /// When there is no node of that number.
    pub fn url(&self, index: usize) -> String {
        self.node(index).url()
    }

    /// Stops a node in good order: it takes leave of the cluster.
    ///
    /// # Errors
    ///
    /// When it does not run, or does not stop within a minute.
    ///
    /// # Panics
    ///
    /// When there is no node of that number.
    pub fn stop(&mut self, index: usize) -> Result<()> {
        self.nodes[index].stop()
    }

    /// Kills (SIGKILL) a node: the others notice after some seconds.
    ///
    /// # Errors
    ///
    /// When it does not run.
    ///
    /// # Panics
    ///
    /// When there is no node of that number.
    pub fn kill(&mut self, index: usize) -> Result<()> {
        self.nodes[index].kill()
    }

    /// Starts a node that was stopped or killed; it joins the others, and is synced when this returns.
    ///
    /// # Errors
    ///
    /// When there is no cluster to join, or the node does not answer within a minute.
    ///
    /// # Panics
    ///
    /// When there is no node of that number.
    pub fn start_again(&mut self, index: usize) -> Result<()> {
        self.nodes[index].start_again()?;
        self.wait_until_synced(index)
    }

    /// Stops (SIGSTOP) every process of a node. The others hold their writes back until they have excluded it.
    ///
    /// # Errors
    ///
    /// When it does not run.
    ///
    /// # Panics
    ///
    /// When there is no node of that number.
    pub fn freeze(&self, index: usize) -> Result<()> {
        self.node(index).freeze()
    }

    /// Lets a frozen node go on. It finds out by itself that it was excluded, and joins again.
    ///
    /// # Errors
    ///
    /// When it does not run.
    ///
    /// # Panics
    ///
    /// When there is no node of that number.
    pub fn thaw(&self, index: usize) -> Result<()> {
        self.node(index).thaw()
    }

    /// Waits until a node belongs to the majority and has all of its writes.
    ///
    /// # Errors
    ///
    /// When that takes more than a minute.
    ///
    /// # Panics
    ///
    /// When there is no node of that number.
    pub fn wait_until_synced(&self, index: usize) -> Result<()> {
        self.wait_for(index, "wsrep_cluster_status", "Primary")?;
        self.wait_for(index, "wsrep_local_state_comment", "Synced")
    }

    /// Waits until a node sees that there is no majority any more, and refuses work.
    ///
    /// # Errors
    ///
    /// When that takes more than a minute.
    ///
    /// # Panics
    ///
    /// When there is no node of that number.
    pub fn wait_for_quorum_loss(&self, index: usize) -> Result<()> {
        self.wait_for(index, "wsrep_cluster_status", "non-Primary")
    }

    /// Waits until a node sees so many nodes, itself included.
    ///
    /// # Errors
    ///
    /// When that takes more than a minute.
    ///
    /// # Panics
    ///
    /// When there is no node of that number.
    pub fn wait_for_size(&self, index: usize, size: usize) -> Result<()> {
        self.wait_for(index, "wsrep_cluster_size", &size.to_string())
    }

    fn wait_for(&self, index: usize, variable: &str, value: &str) -> Result<()> {
        self.node(index)
            .until(&format!("SHOW GLOBAL STATUS LIKE '{variable}'"), value)
            .with_context(|| format!("node {index} of the cluster"))
    }
}

/// The ports of one node, besides the clients'.
#[derive(Clone, Copy, Debug)]
struct NodePorts {
    group: u16,
    incremental: u16,
    full: u16,
}

impl NodePorts {
    fn choose() -> Result<Self> {
        Ok(Self {
            group: ports::free()?,
            incremental: ports::free()?,
            full: ports::free()?,
        })
    }
}

/// What all nodes have in common.
#[derive(Clone, Debug)]
struct Ground {
    programs: Programs,
    tree: PathBuf,
    /// The transfer of all data to a new node fails as root: `rsync` would give the files away.
    user: Option<Unprivileged>,
    name: String,
}

impl Ground {
    fn prepare() -> Result<Self> {
        let programs = unpacked(Bundle::Galera, |tree| {
            let programs = Programs::in_tree(Kind::MariaDb, tree)?;
            if !provider(tree).is_file() {
                bail!("the packages come without Galera");
            }
            Ok(programs)
        })?;
        let user = Unprivileged::needed()?;
        let run = place::servers()?;
        let programs = programs.reachable(user, &run)?;
        let tree = programs.tree().context("the programs lie in a tree")?;
        Ok(Self {
            tree: tree.to_owned(),
            programs,
            user,
            name: format!("dlock-{:016x}", fastrand::u64(..)),
        })
    }

    /// Data of a node that has been a cluster of its own: nodes that start with copies of it agree on what they have,
    /// and none must send all of it to another. Made once for each version.
    fn seed(&self) -> Result<PathBuf> {
        let seed = template::place("galera", &self.programs, self.user)?;
        let _lock = place::lock(&seed.with_extension("lock"))?;
        if !seed.exists() {
            let mut plan = self.plan(None, 0, &[NodePorts::choose()?])?;
            plan.first_arguments.push("--wsrep-new-cluster".into());
            let mut node = Server::start_planned(plan, "-seed")?;
            node.until(
                "SHOW GLOBAL STATUS LIKE 'wsrep_local_state_comment'",
                "Synced",
            )?;
            node.stop()?;
            let new = seed.with_extension("new");
            place::remove(&new)?;
            place::copy(node.data(), &new)?;
            fs::rename(&new, &seed)?;
        }
        Ok(seed)
    }

    fn plan(&self, seed: Option<&Path>, index: usize, ports: &[NodePorts]) -> Result<Plan> {
        let own = ports.get(index).context("a node has ports")?;
        let members: Vec<String> = ports
            .iter()
            .map(|node| format!("127.0.0.1:{}", node.group))
            .collect();
        let mut plan = Plan::with_programs(Kind::MariaDb, self.programs.clone(), self.user);
        plan.seed = seed.map(Path::to_owned);
        plan.arguments = [
            "--binlog-format=ROW".to_owned(),
            "--innodb-autoinc-lock-mode=2".to_owned(),
            "--wsrep-on=ON".to_owned(),
            format!("--wsrep-provider={}", provider(&self.tree).display()),
            format!("--wsrep-cluster-name={}", self.name),
            format!("--wsrep-cluster-address=gcomm://{}", members.join(",")),
            "--wsrep-node-address=127.0.0.1".to_owned(),
            format!("--wsrep-node-name=node{index}"),
            "--wsrep-sst-method=rsync".to_owned(),
            format!("--wsrep-sst-receive-address=127.0.0.1:{}", own.full),
            // The time-outs are shorter than Galera's own, so that a test does not wait for them long.
            format!(
                "--wsrep-provider-options=base_host=127.0.0.1;base_port={group};\
                 gmcast.listen_addr=tcp://127.0.0.1:{group};ist.recv_addr=127.0.0.1:{};\
                 gcache.size=16M;pc.recovery=false;\
                 evs.suspect_timeout=PT3S;evs.inactive_timeout=PT6S",
                own.incremental,
                group = own.group,
            ),
        ]
        .map(OsString::from)
        .into();
        // The server calls scripts, and they call programs, some of which only the tree has.
        let mut directories = std::env::var_os("PATH").unwrap_or_default();
        for directory in ["usr/bin", "usr/sbin"] {
            directories.push(":");
            directories.push(self.tree.join(directory));
        }
        plan.environment.push(("PATH".into(), directories));
        Ok(plan)
    }
}

fn provider(tree: &Path) -> PathBuf {
    tree.join("usr/lib/galera/libgalera_smm.so")
}

use std::ffi::OsString;
use std::time::Duration;

use farpool_session::labels;

use super::{Builder, Placement};

/// Options for where a pool runs, and for its share of the cluster.
impl Builder {
    /// Runs on the cluster whose coordinator is at this address, `http://host:port`, regardless of `FARPOOL_ADDRESS`.
    ///
    /// ```
    /// # fn main() -> Result<(), farpool::Error> {
    /// # farpool::init();
    /// // No coordinator listens there.
    /// let error = farpool::Pool::builder().address("http://127.0.0.1:1").build().unwrap_err();
    /// assert_eq!(error.kind(), farpool::ErrorKind::Unavailable);
    /// assert!(error.to_string().contains("is farpool-coordinator running there?"));
    /// # Ok(())
    /// # }
    /// ```
    #[cfg(feature = "cluster")]
    pub fn address(mut self, url: impl Into<String>) -> Self {
        self.placement = Placement::Cluster(url.into());
        self
    }

    /// Runs on this machine, regardless of `FARPOOL_ADDRESS`.
    ///
    /// ```
    /// # fn main() -> Result<(), farpool::Error> {
    /// # farpool::init();
    /// let pool = farpool::Pool::builder().local().processes(1).build()?;
    /// assert_eq!(pool.apply(|| 1, ())?, 1);
    /// # Ok(())
    /// # }
    /// ```
    pub fn local(mut self) -> Self {
        self.placement = Placement::ThisMachine;
        self
    }

    /// Sets how long a pool on a cluster tries to reconnect when the connection is lost or the coordinator restarts. Jobs
    /// wait meanwhile, then resume; nothing is lost. If that fails, they end with
    /// [`ErrorKind::Unavailable`](crate::ErrorKind::Unavailable). Default: the environment variable
    /// `FARPOOL_RECONNECT_TIMEOUT` (`30s`, `5min`, `0`), or else 60 seconds; with 0 they end at once.
    ///
    /// ```
    /// # fn main() -> Result<(), farpool::Error> {
    /// # farpool::init();
    /// use std::time::Duration;
    ///
    /// let pool = farpool::Pool::builder().processes(1).reconnect_timeout(Duration::from_secs(600)).build()?;
    /// assert_eq!(pool.apply(|| 1, ())?, 1);
    /// # Ok(())
    /// # }
    /// ```
    pub fn reconnect_timeout(mut self, timeout: Duration) -> Self {
        self.reconnect_timeout = Some(timeout);
        self
    }

    /// Runs the pool only on hosts with this label; call it again for more labels: a host must have them all.
    /// Agents have the labels they were started with (`--label gpu=a100`) plus `host`, `arch` and `os`; without a cluster,
    /// this machine has only these three.
    ///
    /// ```
    /// # fn main() -> Result<(), farpool::Error> {
    /// # farpool::init();
    /// let pool = farpool::Pool::builder().processes(1).require("os", std::env::consts::OS).build()?;
    /// assert_eq!(pool.apply(|| 1, ())?, 1);
    /// let error = farpool::Pool::builder().local().require("gpu", "a100").build().unwrap_err();
    /// assert_eq!(error.kind(), farpool::ErrorKind::InvalidArgument);
    /// # Ok(())
    /// # }
    /// ```
    pub fn require(mut self, key: impl Into<String>, value: impl Into<String>) -> Self {
        self.require.push(labels::required(key, value));
        self
    }

    /// Sets the pool's share of a cluster's slots when other pools compete for them, at least 1: weight 2 gets twice as much
    /// as weight 1. Default: 1. Without a cluster it has no effect: pools on one machine are independent of each other.
    ///
    /// ```
    /// # fn main() -> Result<(), farpool::Error> {
    /// # farpool::init();
    /// let pool = farpool::Pool::builder().processes(1).weight(3).build()?;
    /// assert_eq!(pool.apply(|| 1, ())?, 1);
    /// # Ok(())
    /// # }
    /// ```
    pub fn weight(mut self, weight: u32) -> Self {
        self.weight = Some(weight);
        self
    }

    /// Sets an environment variable of the workers; call it again for more. On a cluster, workers see only these and those
    /// that farpool sets itself; on one machine they also inherit the variables of this process.
    ///
    /// ```
    /// # fn main() -> Result<(), farpool::Error> {
    /// # farpool::init();
    /// let pool = farpool::Pool::builder().processes(1).env("GREETING", "hello").build()?;
    /// assert_eq!(pool.apply(|| std::env::var("GREETING").unwrap(), ())?, "hello");
    /// # Ok(())
    /// # }
    /// ```
    pub fn env(mut self, name: impl Into<OsString>, value: impl Into<OsString>) -> Self {
        self.environment.push((name.into(), value.into()));
        self
    }
}

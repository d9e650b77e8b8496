use std::ffi::OsString;
use std::time::Duration;

use super::{Builder, Target};
use crate::labels;

/// Where a pool runs, and what it is among others there.
impl Builder {
    /// Runs on the cluster whose coordinator is at this address, `http://host:port`, whatever `FARPOOL_ADDRESS` says.
    ///
    /// ```
    /// # fn main() -> Result<(), farpool::Error> {
    /// # farpool::init();
    /// // There is nobody at this one.
    /// let error = farpool::Pool::builder().address("http://127.0.0.1:1").build().unwrap_err();
    /// assert_eq!(error.kind(), farpool::ErrorKind::Unavailable);
    /// assert!(error.to_string().contains("is farpool-coordinator running there?"));
    /// # Ok(())
    /// # }
    /// ```
    pub fn address(mut self, url: impl Into<String>) -> Self {
        self.target = Target::Cluster(url.into());
        self
    }

    /// Runs on this machine, whatever `FARPOOL_ADDRESS` says.
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
        self.target = Target::ThisMachine;
        self
    }

    /// On a cluster: how long the pool tries to get its coordinator back when the connection is lost, or the coordinator is
    /// restarted. Meanwhile jobs wait, and then they go on; nothing is lost. If it does not come back, they end
    /// with [`ErrorKind::Unavailable`](crate::ErrorKind::Unavailable). Default: what the environment variable
    /// `FARPOOL_RECONNECT_TIMEOUT` says (`30s`, `5min`, `0`), or else 60 seconds; with 0 they end at once.
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

    /// Only hosts with this label run the pool; may be called again for further labels, all of which a host must have.
    /// Agents have the labels that they were started with (`--label gpu=a100`) and `host`, `arch` and `os`; this machine,
    /// without a cluster, has these three.
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

    /// The pool's share of a cluster's slots against other pools that want them too, at least 1: one of weight 2 gets
    /// twice what one of weight 1 gets. Default: 1. Pools on one machine do not know of each other.
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

    /// Sets an environment variable of the workers; may be called again for further ones. On a cluster workers have no
    /// others, beside those that farpool sets itself; on one machine they have those of this process too.
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

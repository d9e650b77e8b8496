//! A fake agent: starts every pool at once and answers each item with itself.

use std::sync::Arc;

use farpool_net::{Incoming, Outgoing, outgoing};
use farpool_proto::v1::agents_client::AgentsClient;
use farpool_proto::v1::{
    AgentCommand, AgentEvent, AgentHello, Assign, Credit, Draining, PoolStarted, PoolStopped, RunDone,
};
use tokio::sync::Notify;
use tokio::task::JoinHandle;
use tonic::transport::Channel;
use tonic::{Code, Status};

pub(crate) use farpool_proto::v1::agent_command::Body as Order;
pub(crate) use farpool_proto::v1::agent_event::Body as Say;

use crate::client::{cut, secret};
use crate::server::{Server, soon};

pub(crate) struct Agent {
    pub(crate) out: Outgoing<AgentEvent>,
    incoming: Incoming<AgentCommand>,
    /// What it was told together with the welcome.
    early: Vec<Order>,
    /// What each result is as many times as its item.
    pub(crate) times: usize,
}

impl Agent {
    /// One that echoes, with so many slots and as much credit.
    pub(crate) async fn echo(server: &Server, number: u8, slots: u32) -> JoinHandle<Result<(), Status>> {
        let agent = Self::joined(server, number, slots).await;
        tokio::spawn(agent.work())
    }

    /// One that has said hello and been welcomed.
    pub(crate) async fn joined(server: &Server, number: u8, slots: u32) -> Self {
        Self::joined_over(server.connect().await, hello(number, slots)).await
    }

    pub(crate) async fn joined_over(channel: Channel, hello: AgentHello) -> Self {
        let mut agent = Self::over(channel).await;
        let slots = hello.slots;
        agent.say(Say::Hello(Box::new(hello)));
        agent.say(Say::Credit(Credit { chunks: slots * 2, bytes: 0 }));
        let mut orders = agent.next().await.expect("the session goes on").expect("the session goes on");
        assert!(matches!(orders.remove(0), Order::Welcome(_)), "not welcomed");
        agent.early = orders;
        agent
    }

    /// One that has said nothing yet.
    pub(crate) async fn silent(server: &Server) -> Self {
        Self::over(server.connect().await).await
    }

    /// Goes on with its session over another connection.
    pub(crate) async fn resume(&mut self, channel: Channel, number: u8) -> Result<(), Status> {
        let frames = self.out.resume(secret(number));
        let reply = soon("a session", AgentsClient::new(channel).session(frames)).await?;
        self.incoming = soon("the answer", self.out.resumed(reply.into_inner(), 1 << 30)).await?;
        Ok(())
    }

    async fn over(channel: Channel) -> Self {
        let (out, frames) = outgoing(0, Arc::new(Notify::new()));
        let reply = soon("a session", AgentsClient::new(channel).session(frames)).await.expect("the session begins");
        Self { incoming: out.incoming(reply.into_inner(), 1 << 30), out, early: Vec::new(), times: 1 }
    }

    pub(crate) fn say(&self, body: Say) {
        self.out.push(AgentEvent { body: Some(body) });
    }

    pub(crate) async fn next(&mut self) -> Result<Option<Vec<Order>>, Status> {
        if !self.early.is_empty() {
            return Ok(Some(std::mem::take(&mut self.early)));
        }
        let commands = self.incoming.next().await?;
        Ok(commands.map(|commands| commands.into_iter().filter_map(|command| command.body).collect()))
    }

    /// These are what it is told next.
    pub(crate) fn put_back(&mut self, orders: impl Iterator<Item = Order>) {
        self.early.extend(orders);
    }

    /// The first pool that it is to start, which it says it has.
    pub(crate) async fn pool(&mut self) -> u64 {
        loop {
            let orders = soon("a pool", self.next()).await.expect("the session goes on").expect("the session goes on");
            for order in orders {
                if let Order::StartPool(start) = &order {
                    let pool = start.pool;
                    self.follow(order);
                    return pool;
                }
            }
        }
    }

    /// Does what it is told until its session ends.
    pub(crate) async fn work(mut self) -> Result<(), Status> {
        while let Some(orders) = self.next().await? {
            orders.into_iter().for_each(|order| self.follow(order));
        }
        Ok(())
    }

    /// Starts and stops pools until its session ends, and runs nothing.
    pub(crate) async fn idle(mut self) -> Result<(), Status> {
        while let Some(orders) = self.next().await? {
            let orders = orders.into_iter().filter(|order| !matches!(order, Order::Assign(_)));
            orders.for_each(|order| self.follow(order));
        }
        Ok(())
    }

    pub(crate) fn follow(&self, order: Order) {
        match order {
            Order::StartPool(start) => self.say(Say::PoolStarted(PoolStarted { pool: start.pool })),
            Order::StopPool(stop) => self.say(Say::PoolStopped(PoolStopped { pool: stop.pool })),
            Order::Assign(assign) => self.run(&assign),
            Order::Drain(_) => {
                self.say(Say::Draining(Draining {}));
                self.out.finish();
            }
            _ => {}
        }
    }

    fn run(&self, assign: &Assign) {
        let mut segments = assign.segments.iter();
        for chunk in &assign.chunks {
            let (mut data, mut ends) = (Vec::new(), Vec::new());
            for segment in segments.by_ref().take(chunk.segments as usize) {
                for item in cut(&segment.data, segment.start, &segment.ends) {
                    data.extend(item.repeat(self.times));
                    ends.extend((data.len() as u32).to_le_bytes());
                }
            }
            let (data, ends) = (data.into(), ends.into());
            let (chunk, attempt, first) = (chunk.chunk, chunk.attempt, chunk.first);
            self.say(Say::RunDone(RunDone { chunk, attempt, first, data, ends, busy_ns: 1000, failed: false }));
        }
    }

    /// The session is ended with a status that says this.
    pub(crate) async fn must_be_refused(mut self, code: Code, words: &str) {
        let status = loop {
            match soon("the end of the agent's session", self.next()).await {
                Ok(Some(_)) => {}
                Ok(None) => panic!("the session ended without an error"),
                Err(status) => break status,
            }
        };
        assert_eq!(status.code(), code, "{status:?}");
        assert!(status.message().contains(words), "{status:?}");
    }
}

impl Drop for Agent {
    fn drop(&mut self) {
        self.out.finish();
    }
}

pub(crate) fn hello(number: u8, slots: u32) -> AgentHello {
    let host = format!("host{number}");
    let version = Some(farpool_proto::version());
    AgentHello { host, slots, version, secret: secret(number), ..AgentHello::default() }
}

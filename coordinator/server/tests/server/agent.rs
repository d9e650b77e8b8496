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

pub(crate) use farpool_proto::v1::agent_command::Body as Command;
pub(crate) use farpool_proto::v1::agent_event::Body as Report;

use crate::client::{cut, secret};
use crate::server::{Server, soon};

pub(crate) struct Agent {
    pub(crate) out: Outgoing<AgentEvent>,
    incoming: Incoming<AgentCommand>,
    /// Commands that arrived with the welcome.
    early: Vec<Command>,
    /// Each result is its item, repeated this many times.
    pub(crate) times: usize,
}

impl Agent {
    /// Starts an agent that echoes, with this many slots.
    pub(crate) async fn echo(server: &Server, number: u8, slots: u32) -> JoinHandle<Result<(), Status>> {
        let agent = Self::joined(server, number, slots).await;
        tokio::spawn(agent.work())
    }

    /// Connects an agent that has sent its hello and was welcomed.
    pub(crate) async fn joined(server: &Server, number: u8, slots: u32) -> Self {
        Self::joined_over(server.connect().await, hello(number, slots)).await
    }

    pub(crate) async fn joined_over(channel: Channel, hello: AgentHello) -> Self {
        let mut agent = Self::over(channel).await;
        let slots = hello.slots;
        agent.send(Report::Hello(Box::new(hello)));
        agent.send(Report::Credit(Credit { chunks: slots * 2, bytes: 0 }));
        let mut commands = agent.next().await.expect("the session ended").expect("the session ended");
        assert!(matches!(commands.remove(0), Command::Welcome(_)), "not welcomed");
        agent.early = commands;
        agent
    }

    /// Connects an agent that has sent nothing yet.
    pub(crate) async fn silent(server: &Server) -> Self {
        Self::over(server.connect().await).await
    }

    /// Resumes its session on another connection.
    pub(crate) async fn resume(&mut self, channel: Channel, number: u8) -> Result<(), Status> {
        let frames = self.out.resume(secret(number));
        let reply = soon("a session", AgentsClient::new(channel).session(frames)).await?;
        self.incoming = soon("the answer", self.out.resumed(reply.into_inner(), 1 << 30)).await?;
        Ok(())
    }

    async fn over(channel: Channel) -> Self {
        let (out, frames) = outgoing(0, Arc::new(Notify::new()));
        let reply =
            soon("a session", AgentsClient::new(channel).session(frames)).await.expect("cannot begin a session");
        Self { incoming: out.incoming(reply.into_inner(), 1 << 30), out, early: Vec::new(), times: 1 }
    }

    pub(crate) fn send(&self, body: Report) {
        self.out.push(AgentEvent { body: Some(body) });
    }

    pub(crate) async fn next(&mut self) -> Result<Option<Vec<Command>>, Status> {
        if !self.early.is_empty() {
            return Ok(Some(std::mem::take(&mut self.early)));
        }
        let commands = self.incoming.next().await?;
        Ok(commands.map(|commands| commands.into_iter().filter_map(|command| command.body).collect()))
    }

    /// Makes `next` return these commands first.
    pub(crate) fn put_back(&mut self, commands: impl Iterator<Item = Command>) {
        self.early.extend(commands);
    }

    /// Waits for a StartPool, reports the pool as started, and returns it.
    pub(crate) async fn pool(&mut self) -> u64 {
        loop {
            let commands = soon("a pool", self.next()).await.expect("the session ended").expect("the session ended");
            for command in commands {
                if let Command::StartPool(start) = &command {
                    let pool = start.pool;
                    self.execute(command);
                    return pool;
                }
            }
        }
    }

    /// Executes commands until its session ends.
    pub(crate) async fn work(mut self) -> Result<(), Status> {
        while let Some(commands) = self.next().await? {
            commands.into_iter().for_each(|command| self.execute(command));
        }
        Ok(())
    }

    /// Starts and stops pools until its session ends, but runs nothing.
    pub(crate) async fn idle(mut self) -> Result<(), Status> {
        while let Some(commands) = self.next().await? {
            let commands = commands.into_iter().filter(|command| !matches!(command, Command::Assign(_)));
            commands.for_each(|command| self.execute(command));
        }
        Ok(())
    }

    pub(crate) fn execute(&self, command: Command) {
        match command {
            Command::StartPool(start) => self.send(Report::PoolStarted(PoolStarted { pool: start.pool })),
            Command::StopPool(stop) => self.send(Report::PoolStopped(PoolStopped { pool: stop.pool })),
            Command::Assign(assign) => self.run(&assign),
            Command::Drain(_) => {
                self.send(Report::Draining(Draining {}));
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
            self.send(Report::RunDone(RunDone { chunk, attempt, first, data, ends, busy_ns: 1000, failed: false }));
        }
    }

    /// Checks that the session ends with this status.
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

//! Tokens of items: with one, a program that a task has started says which item it belongs to.
//!
//! The agent puts its own id into the environment of its workers. Each worker appends a secret of its own, and the
//! position of the running item: `AGENT-SECRET-.POSITION`. So all processes that the task starts inherit the token of
//! its item.
//!
//! A token proves nothing, since it can be copied. So a program connects to a socket of the agent ([`socket_name`]) and
//! makes a [`Claim`]. The kernel tells the agent which process has connected. If it descends from the worker with this
//! secret, the agent answers [`GRANTED`]. While the connection is open, the agent lends the item's slot whenever the
//! coordinator reports that the client with the claim's ticket waits. Only tickets leave the host.

/// The environment variable that carries a token.
pub const ITEM_VARIABLE: &str = "FARPOOL_ITEM";
/// A position that no item has: workers are replaced before they reach it.
pub const NO_ITEM: u32 = u32::MAX;
/// Bytes of a token before its position.
pub const PREFIX_BYTES: usize = 32 + 1 + 32 + 2;
/// The agent's answer to a claim that it accepts. Otherwise it closes the connection.
pub const GRANTED: u8 = 1;
/// Letters of a position.
pub const POSITION_BYTES: usize = 8;

/// A token of an item.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ItemToken {
    /// The agent's id.
    pub agent: u128,
    /// The worker's secret.
    pub secret: u128,
    /// The position of the item in its worker's stream of items.
    pub position: u32,
}

impl ItemToken {
    /// Parses a token; `None` if it is malformed.
    pub fn parse(text: &str) -> Option<ItemToken> {
        let (agent, rest) = text.split_once('-')?;
        let (secret, position) = rest.split_once("-.")?;
        Some(ItemToken { agent: agent_id(agent)?, secret: hex(secret)?, position: read_position(position)? })
    }

    /// Returns the text of the token before the position.
    pub fn prefix(&self) -> String {
        format!("{:032x}-{:032x}-.", self.agent, self.secret)
    }
}

/// A program's claim that a task of this item started it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Claim {
    /// A random number, chosen by the program, by which coordinators know it.
    pub ticket: u128,
    /// The worker's secret.
    pub secret: u128,
    /// The position of the item in its worker's stream of items.
    pub position: u32,
}

impl Claim {
    /// Size of an encoded claim.
    pub const BYTES: usize = 36;

    /// Encodes the claim.
    pub fn to_bytes(&self) -> [u8; Claim::BYTES] {
        let mut bytes = [0; Claim::BYTES];
        bytes[..16].copy_from_slice(&self.ticket.to_be_bytes());
        bytes[16..32].copy_from_slice(&self.secret.to_be_bytes());
        bytes[32..].copy_from_slice(&self.position.to_be_bytes());
        bytes
    }

    /// Decodes a claim.
    pub fn from_bytes(bytes: &[u8; Claim::BYTES]) -> Claim {
        let number = |at: usize| u128::from_be_bytes(bytes[at..at + 16].try_into().expect("16 bytes"));
        let position = u32::from_be_bytes(bytes[32..].try_into().expect("4 bytes"));
        Claim { ticket: number(0), secret: number(16), position }
    }
}

/// Returns the name of the socket where the agent with this id accepts claims, in the abstract namespace of unix(7).
pub fn socket_name(agent: u128) -> String {
    format!("farpool-agent-{agent:032x}")
}

/// Returns what an agent puts into the environment of its workers, if it has an id.
pub fn of_agent(id: &[u8]) -> Option<String> {
    Some(format!("{:032x}", u128::from_be_bytes(id.try_into().ok()?)))
}

/// Returns the agent's id, if the text was made by [`of_agent`].
pub fn agent_id(text: &str) -> Option<u128> {
    hex(text)
}

/// Returns a position in letters: the bytes of the returned number in memory order. It takes few operations, since
/// workers do this for each item.
pub fn position_letters(position: u32) -> u64 {
    let mut spread = u64::from(position);
    spread = (spread | spread << 16) & 0x0000_ffff_0000_ffff;
    spread = (spread | spread << 8) & 0x00ff_00ff_00ff_00ff;
    spread = (spread | spread << 4) & 0x0f0f_0f0f_0f0f_0f0f;
    (spread + 0x6161_6161_6161_6161).to_be()
}

fn read_position(letters: &str) -> Option<u32> {
    if letters.len() != POSITION_BYTES {
        return None;
    }
    letters.bytes().try_fold(0, |position, letter| match letter {
        b'a'..=b'p' => Some(position << 4 | u32::from(letter - b'a')),
        _ => None,
    })
}

fn hex(text: &str) -> Option<u128> {
    let digits = text.len() == 32 && text.bytes().all(|byte| byte.is_ascii_hexdigit());
    digits.then(|| u128::from_str_radix(text, 16).ok()).flatten()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(token: &ItemToken) -> String {
        let letters = position_letters(token.position).to_ne_bytes();
        format!("{}{}", token.prefix(), std::str::from_utf8(&letters).expect("letters"))
    }

    #[test]
    fn tokens_round_trip() {
        for position in [0, 1, 15, 16, 0x1234_abcd, (1 << 31) - 1, NO_ITEM] {
            let token = ItemToken { agent: 7, secret: u128::MAX - position as u128, position };
            let text = text(&token);
            assert_eq!(ItemToken::parse(&text), Some(token), "{text}");
            assert_eq!(text.len(), PREFIX_BYTES + POSITION_BYTES);
        }
        assert!(text(&ItemToken { agent: 0, secret: 1, position: 0x10f }).ends_with("-.aaaaabap"));
    }

    #[test]
    fn malformed_tokens_are_rejected() {
        let good = text(&ItemToken { agent: 1, secret: 2, position: 3 });
        let bad = [
            String::new(),
            "-".into(),
            "x".into(),
            good[1..].into(),
            good.replace('-', "+"),
            good.replace("-.", "-"),
            format!("{good}a"),
            good.replacen('0', "g", 1),
            good.replacen('0', "+", 1),
            good[..good.len() - 1].to_owned() + "q",
            of_agent(&[1; 16]).unwrap(),
        ];
        for text in bad {
            assert_eq!(ItemToken::parse(&text), None, "{text:?}");
        }
    }

    #[test]
    fn claims_round_trip() {
        let claim = Claim { ticket: 1 << 100 | 7, secret: u128::MAX - 3, position: 0x0102_0304 };
        assert_eq!(Claim::from_bytes(&claim.to_bytes()), claim);
    }

    #[test]
    fn an_agent_without_an_id_sets_no_token() {
        assert_eq!(of_agent(&[]), None);
        assert_eq!(agent_id(&of_agent(&[3; 16]).unwrap()), Some(u128::from_be_bytes([3; 16])));
    }
}

//! Tokens of items: what a client that a task starts shows, so that its item's slot is lent while it waits.
//!
//! The agent puts its own id into the environment of its workers. Each worker puts a secret of its own behind it, and the position of the
//! item that it is on: `AGENT-SECRET-.POSITION`. So whatever the task starts inherits the token of its item, nobody else can guess it,
//! and it is void when the item has ended.

/// The environment variable that carries a token.
pub const ITEM_VARIABLE: &str = "FARPOOL_ITEM";
/// The position of no item: workers are replaced before they get that far.
pub const NO_ITEM: u32 = u32::MAX;
/// Bytes of a token in front of its position, and of the position.
pub const PREFIX_BYTES: usize = 32 + 1 + 32 + 2;
/// Letters of a position.
pub const POSITION_BYTES: usize = 8;

/// A token of an item.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ItemToken {
    /// The agent's id.
    pub agent: u128,
    /// The worker's secret.
    pub secret: u128,
    /// Where the item lies in its worker's stream of items.
    pub position: u32,
}

impl ItemToken {
    /// Reads a token; `None` if the text is none.
    pub fn parse(text: &str) -> Option<ItemToken> {
        let (agent, rest) = text.split_once('-')?;
        let (secret, position) = rest.split_once("-.")?;
        Some(ItemToken { agent: agent_id(agent)?, secret: hex(secret)?, position: read_position(position)? })
    }

    /// The token as text, in front of the position.
    pub fn prefix(&self) -> String {
        format!("{:032x}-{:032x}-.", self.agent, self.secret)
    }
}

/// What an agent puts into the environment of its workers, if it has an id.
pub fn of_agent(id: &[u8]) -> Option<String> {
    Some(format!("{:032x}", u128::from_be_bytes(id.try_into().ok()?)))
}

/// The agent's id, if the text is what [`of_agent`] makes.
pub fn agent_id(text: &str) -> Option<u128> {
    hex(text)
}

/// A position in letters, as the bytes of the returned number lie in memory. A few operations, since workers do this for each item.
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
    fn tokens_are_read_as_they_are_written() {
        for position in [0, 1, 15, 16, 0x1234_abcd, (1 << 31) - 1, NO_ITEM] {
            let token = ItemToken { agent: 7, secret: u128::MAX - position as u128, position };
            let text = text(&token);
            assert_eq!(ItemToken::parse(&text), Some(token), "{text}");
            assert_eq!(text.len(), PREFIX_BYTES + POSITION_BYTES);
        }
        assert!(text(&ItemToken { agent: 0, secret: 1, position: 0x10f }).ends_with("-.aaaaabap"));
    }

    #[test]
    fn what_is_no_token_is_refused() {
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
    fn an_agent_that_has_no_id_gives_its_workers_none() {
        assert_eq!(of_agent(&[]), None);
        assert_eq!(agent_id(&of_agent(&[3; 16]).unwrap()), Some(u128::from_be_bytes([3; 16])));
    }
}

//! Reads the fuzzer's input as choices and as what a sender writes.

/// Things senders say; a choice below [`SAID`]`.len()` takes one, any other takes octets from the input.
const SAID: [&[u8]; 26] = [
    b"EHLO client.example\r\n",
    b"HELO client.example\r\n",
    b"MAIL FROM:<a@sender.example>\r\n",
    b"MAIL FROM:<> BODY=8BITMIME SIZE=100\r\n",
    b"MAIL FROM:<b@other.example> SMTPUTF8\r\n",
    b"RCPT TO:<once@alias.example>\r\n",
    b"RCPT TO:<Once@Alias.Example>\r\n",
    b"RCPT TO:<twice@alias.example>\r\n",
    b"RCPT TO:<free@alias.example>\r\n",
    b"RCPT TO:<elsewhere@alias.example>\r\n",
    b"RCPT TO:<nobody@alias.example>\r\n",
    b"RCPT TO:<x@not-ours.example>\r\n",
    b"RCPT TO:<postmaster>\r\n",
    b"RCPT TO:<abuse@alias.example>\r\n",
    b"DATA\r\n",
    b"RSET\r\n",
    b"QUIT\r\n",
    b"NOOP\r\n",
    b"GET / HTTP/1.1\r\n",
    b"Message-ID: <1@sender.example>\r\nSubject: one\r\n\r\n",
    b"Message-ID: <2@sender.example>\r\n\r\n..stuffed\r\n",
    b"Delivered-To: once@alias.example\r\n",
    b"text\r\n",
    b"bare\nline\rends\r\n",
    b".\r\n",
    b"\r\n.\n",
];

pub(crate) struct Script<'a> {
    rest: &'a [u8],
}

impl<'a> Script<'a> {
    pub(crate) fn new(input: &'a [u8]) -> Self {
        Self { rest: input }
    }

    /// The next choice; 0 for ever once the input is used up.
    pub(crate) fn next(&mut self) -> u8 {
        let Some((first, rest)) = self.rest.split_first() else { return 0 };
        self.rest = rest;
        *first
    }

    pub(crate) fn is_over(&self) -> bool {
        self.rest.is_empty()
    }

    /// What the sender writes next: nothing once the input is used up.
    pub(crate) fn said(&mut self) -> Vec<u8> {
        if self.is_over() {
            return vec![];
        }
        let choice = usize::from(self.next());
        if let Some(said) = SAID.get(choice) {
            return said.to_vec();
        }
        let (said, rest) = self.rest.split_at((choice - SAID.len()).min(self.rest.len()));
        self.rest = rest;
        said.to_vec()
    }
}

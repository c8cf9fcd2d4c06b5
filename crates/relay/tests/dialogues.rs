//! Every file of `tests/dialogues`, played on the machine.

use tempalias_testkit::{Dialogue, machine};

#[test]
fn every_dialogue_goes_as_written() {
    let dialogues = Dialogue::all();
    assert!(dialogues.len() >= 100, "only {} dialogues were found", dialogues.len());
    let wanted = std::env::var("DIALOGUE").unwrap_or_default();
    let failed: Vec<String> = dialogues
        .iter()
        .filter(|dialogue| dialogue.name.contains(&wanted))
        .filter_map(|dialogue| machine::play(dialogue).err().map(|failed| failed.to_string()))
        .collect();
    assert!(failed.is_empty(), "{} of {} failed\n{}", failed.len(), dialogues.len(), failed.join("\n"));
}

#[test]
fn a_dialogue_that_does_not_go_as_written_fails() {
    let text = "# Two things that are not so.\nC+ greets\nC> NOOP\nC< 251 *\n";
    let failed = machine::play(&Dialogue::parse("wrong", text).unwrap()).unwrap_err();
    assert!(failed.to_string().starts_with("tests/dialogues/wrong.smtp:4:"), "{failed}");
    let unread = "# A reply that nobody read.\nC+ greets\nC> NOOP\n";
    assert!(machine::play(&Dialogue::parse("unread", unread).unwrap()).is_err());
    let never = "# A word that must not come.\nC<! Here\nC+ greets\nC> NOOP\nC< 250 *\n";
    assert!(machine::play(&Dialogue::parse("never", never).unwrap()).is_err());
}

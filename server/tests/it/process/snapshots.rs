//! Snapshots of the real program: written behind the first start, used by the next, whole or not at all.

use std::fs;
use std::os::unix::fs::{FileExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::process::{Output, Stdio};

use reqwest::StatusCode;
use serde_json::{Value, json};

use super::support::{Node, Package, chat_body, pinion, signal};

/// A package, and a store that no other test uses.
struct Home {
    package: Package,
    directory: tempfile::TempDir,
}

impl Home {
    fn new() -> Self {
        Self { package: Package::starter(), directory: tempfile::tempdir().unwrap() }
    }

    fn store(&self) -> PathBuf {
        self.directory.path().join("store")
    }

    /// Serves the package with snapshots, and more arguments.
    async fn serve(&self, more: &[&str]) -> Node {
        let (package, store) = (self.package.name(), self.store());
        let mut arguments = vec![package.as_str(), "--snapshots", "on", "--snapshot-dir"];
        arguments.push(store.to_str().unwrap());
        arguments.extend(more);
        Node::ready(&arguments).await
    }

    fn command(&self, arguments: &[&str]) -> Output {
        let mut command = pinion(&["snapshot"]);
        command.args(arguments).arg("--snapshot-dir").arg(self.store());
        command.output().unwrap()
    }

    /// All published snapshots, as the program lists them.
    fn list(&self) -> Vec<Value> {
        let output = self.command(&["--list", "--json"]);
        assert!(output.status.success(), "{output:?}");
        let text = String::from_utf8(output.stdout).unwrap();
        text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
    }

    /// The image of the only snapshot.
    fn image(&self) -> PathBuf {
        let all = self.list();
        assert_eq!(all.len(), 1, "{all:?}");
        Path::new(all[0]["path"].as_str().unwrap()).join("weights.img")
    }

    fn damage(&self) {
        let image = self.image();
        fs::set_permissions(&image, fs::Permissions::from_mode(0o600)).unwrap();
        let file = fs::File::options().read(true).write(true).open(image).unwrap();
        // The last weights of the data, which some tensor holds.
        let at = file.metadata().unwrap().len() / 2 + (1 << 20);
        let mut byte = [0];
        file.read_exact_at(&mut byte, at).unwrap();
        file.write_all_at(&[byte[0] ^ 0x10], at).unwrap();
    }

    fn staged(&self) -> Vec<PathBuf> {
        let entries = fs::read_dir(self.store().join("staging"));
        entries.into_iter().flatten().map(|entry| entry.unwrap().path()).collect()
    }
}

/// A sampled answer with its log probabilities.
async fn answer(node: &Node) -> Value {
    let mut body = chat_body("mine", "Count from 3 to 20.");
    body["seed"] = json!(11);
    body["temperature"] = json!(0.9);
    body["logprobs"] = json!(true);
    let (status, answer) = node.post("/v1/chat/completions", &body).await;
    assert_eq!(status, StatusCode::OK, "{answer}");
    answer["choices"].clone()
}

#[tokio::test(flavor = "multi_thread")]
async fn the_first_start_writes_a_snapshot_and_the_next_gives_the_same_answers_from_it() {
    for dtype in ["bf16", "q4_k"] {
        let home = Home::new();
        let cold = home.serve(&["--dtype", dtype]).await;
        let first = answer(&cold).await;
        cold.line_with("mine: snapshot of ");
        drop(cold);
        let warm = home.serve(&["--dtype", dtype]).await;
        warm.line_with("mine: its snapshot: ");
        assert_eq!(answer(&warm).await, first, "{dtype}");
        let worker = warm.worker();
        let maps = fs::read_to_string(format!("/proc/{worker}/maps")).unwrap();
        let image = maps.lines().find(|line| line.ends_with("weights.img")).unwrap();
        assert!(image.contains(" r--p "), "mapped privately and never written: {image}");
        assert!(!maps.contains("model.safetensors"), "the package's weights are not looked at");
        assert_eq!(home.list().len(), 1);
        // A worker that dies comes back from the snapshot as well.
        signal(worker, "KILL");
        warm.line_with("the worker died");
        warm.until_ready().await;
        assert_eq!(answer(&warm).await, first, "{dtype}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_change_to_the_package_is_never_answered_from_the_old_snapshot() {
    let home = Home::new();
    assert!(home.command(&[&home.package.name()]).status.success());
    home.package.template("{{ messages[0].content }}!");
    let node = home.serve(&[]).await;
    node.line_with("mine: snapshot of ");
    assert_eq!(home.list().len(), 2, "another package, another snapshot");
}

#[test]
fn the_command_writes_lists_shows_and_verifies_a_snapshot() {
    let home = Home::new();
    let package = home.package.name();
    let written = home.command(&[&package, "--json"]);
    assert!(written.status.success(), "{written:?}");
    let result: Value = serde_json::from_slice(&written.stdout).unwrap();
    assert_eq!(result["written"], json!(true), "{result}");
    let again = home.command(&[&package, "--json"]);
    let result: Value = serde_json::from_slice(&again.stdout).unwrap();
    assert_eq!(result["written"], json!(false), "{result}");
    let shown: Value =
        serde_json::from_slice(&home.command(&[&package, "--inspect", "--json"]).stdout).unwrap();
    assert_eq!(shown["notes"]["architecture"], json!("LlamaForCausalLM"));
    assert_eq!(shown["canary"]["tokens"].as_array().unwrap().len(), 4, "{shown}");
    let verified = home.command(&[&package, "--verify"]);
    assert!(verified.status.success(), "{verified:?}");
    home.damage();
    let verified = home.command(&[&package, "--verify"]);
    let message = String::from_utf8(verified.stderr).unwrap();
    assert_eq!(verified.status.code(), Some(1), "{message}");
    assert!(message.contains("does not match its CRC-32C, near `"), "{message}");
    home.package.template("another package");
    let none = home.command(&[&package, "--inspect"]);
    assert_eq!(none.status.code(), Some(3), "{none:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn damaged_weights_are_found_while_serving_and_the_package_is_rebuilt() {
    let home = Home::new();
    let cold = home.serve(&[]).await;
    let first = answer(&cold).await;
    cold.line_with("mine: snapshot of ");
    drop(cold);
    home.damage();
    let node = home.serve(&[]).await;
    // The canary may notice first; then nothing was ever computed with it.
    let line = node.line_with("snapshot");
    let seen_at_once = line.contains("gives other");
    if !seen_at_once {
        node.line_with("does not match its CRC-32C");
    }
    node.line_with("mine: snapshot of ");
    node.until_ready().await;
    assert_eq!(answer(&node).await, first);
    assert!(home.command(&[&home.package.name(), "--verify"]).status.success());
}

#[tokio::test(flavor = "multi_thread")]
async fn damaged_weights_never_serve_where_all_are_verified_first() {
    let home = Home::new();
    assert!(home.command(&[&home.package.name()]).status.success());
    home.damage();
    let node = home.serve(&["--snapshot-verify", "full"]).await;
    node.line_with("the snapshot is not used: snapshot is damaged");
    node.line_with("mine: snapshot of ");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_killed_while_it_writes_leaves_the_old_snapshot_or_none() {
    let home = Home::new();
    let package = home.package.name();
    let mut seen = [false; 2];
    for stage in 0..12_u64 {
        let mut command = pinion(&["snapshot", &package, "--dtype", "f32", "--snapshot-dir"]);
        let command = command.arg(home.store()).stdout(Stdio::null()).stderr(Stdio::null());
        let mut writer = command.spawn().unwrap();
        // Until the folder, the image, or so much of it is there, or the command is through.
        let reached = |path: &PathBuf| match stage {
            0 => path.is_dir(),
            _ => fs::metadata(path.join("weights.img")).is_ok_and(|image| {
                let blocks = std::os::unix::fs::MetadataExt::blocks(&image);
                (stage - 1) * 1024 < blocks
            }),
        };
        while !home.staged().iter().any(reached) && writer.try_wait().unwrap().is_none() {
            std::thread::yield_now();
        }
        writer.kill().unwrap();
        writer.wait().unwrap();
        let published = home.list();
        seen[published.len()] = true;
        for one in &published {
            let path = one["path"].as_str().unwrap();
            let whole = home.command(&[path, "--verify"]);
            assert!(whole.status.success(), "{stage}: {whole:?}");
            fs::remove_dir_all(path).unwrap();
        }
    }
    assert!(seen[0], "no kill came in time to be a test");
    // What the dead left is gone, and nothing stands in the way.
    assert!(home.command(&[&package]).status.success());
    assert_eq!(home.staged(), [""; 0].map(PathBuf::from));
    assert_eq!(home.list().len(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_store_that_cannot_be_used_is_a_warning_or_an_error_as_wished() {
    let home = Home::new();
    fs::write(home.store(), "no folder").unwrap();
    let store = home.store();
    let store = store.to_str().unwrap();
    let package = home.package.name();
    let node = Node::ready(&[&package, "--snapshots", "auto", "--snapshot-dir", store]).await;
    assert_eq!(node.chat("mine", "Who are you?").await.0, StatusCode::OK);
    let output = home.command(&[&package]);
    assert_eq!(output.status.code(), Some(1), "{output:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_snapshot_that_does_not_fit_is_not_written_and_the_package_serves() {
    let home = Home::new();
    let node = home.serve(&["--snapshot-limit", "1MiB"]).await;
    node.line_with("exceeds the limit of 1048576");
    assert_eq!(node.chat("mine", "Who are you?").await.0, StatusCode::OK);
    assert!(home.list().is_empty());
}

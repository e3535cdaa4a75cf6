//! The page about models says what is served, and what it was tested against.

use std::path::Path;

#[test]
fn the_page_about_models_is_made_of_the_registry() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/models.md");
    let page = std::fs::read_to_string(path).unwrap();
    let hint = "run `cargo run -p pinion-models --example models_page > docs/models.md`";
    assert!(page == pinion_models::models_page(), "docs/models.md is stale: {hint}");
    let golden = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden");
    for file in std::fs::read_dir(golden).unwrap() {
        let golden: serde_json::Value =
            serde_json::from_str(&std::fs::read_to_string(file.unwrap().path()).unwrap()).unwrap();
        let version = golden["made_with"]["transformers"].as_str().unwrap();
        assert!(page.contains(&format!("transformers {version},")), "{version} is not on the page");
        let architecture = golden["config"]["architectures"][0].as_str().unwrap();
        assert!(page.contains(architecture), "{architecture} is not on the page");
    }
}

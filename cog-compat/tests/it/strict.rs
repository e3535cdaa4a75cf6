//! What `cog build` refuses beyond the recorded files.
use pinion_cog_compat::manifest::strict::check;

fn errors(text: &str, requirements: &str) -> Vec<String> {
    let found = check(text, &|path| (path == "requirements.txt").then(|| requirements.to_owned()));
    found.iter().filter(|fault| fault.is_error()).map(|fault| fault.message.clone()).collect()
}

const BUILD: &str = "build:\n  python_version: '3.13'\n";

#[test]
fn a_plain_package_is_accepted() {
    assert_eq!(errors(&format!("{BUILD}run: run.py:Runner\n"), ""), [""; 0]);
    assert_eq!(errors("", ""), [""; 0]);
}

#[test]
fn each_rule_refuses_what_it_is_about() {
    let weights = "model: r/m\nweights: [{name: a, target: /a, source: {uri: x}}, {name: a, target: /a/b, source: {uri: y}}]\n";
    for (text, message) in [
        ("build: {gpu: true}", "python_version is required"),
        ("build: {python_version: 3.9}", "minimum supported Python version is 3.10"),
        ("build: {python_version: '3.13', cuda: '10.2'}", "minimum supported CUDA version is 11"),
        (
            "build: {python_version: '3.13', cuda: '12'}",
            "must include both major and minor versions",
        ),
        ("build: {python_version: '3.13', gpu: 'true'}", "must be true or false"),
        (
            "build: {python_version: '3.13', sdk_version: 0.15.1}",
            "minimum supported SDK version is 0.16.0",
        ),
        ("build: {python_version: '3.13', python_requirements: gone.txt}", "file does not exist"),
        (
            "build: {python_version: '3.13', python_requirements: requirements.txt, python_packages: [a]}",
            "not both",
        ),
        (
            "build: {python_version: '3.13', gpu: yes, python_requirements: requirements.txt}",
            "torch version must be",
        ),
        (
            "build: {python_version: '3.13', gpu: yes, cuda: '11.8', cudnn: '9'}",
            "CUDA 11.8 is incompatible with CuDNN 9",
        ),
        ("run: run.py", "must be in the form 'run.py:Runner'"),
        ("train: train", "must be in the form 'train.py:Trainer'"),
        ("run: a.py:A\nrun: b.py:B", "duplicate key"),
        ("image: a/b\nmodel: a/b", "only one of image or model"),
        ("model: a/b:tag", "bare repository"),
        ("environment: [A=1, A=2]", "duplicate environment variable \"A\""),
        ("environment: [OTEL_SERVICE_NAME=x]", "reserved for internal use"),
        ("weights: [{name: a, target: /a, source: {uri: x}}]", "weights require a model"),
        (weights, "duplicate weight name"),
        (weights, "overlaps with target \"/a\""),
        ("model: r/m\nweights: [{}]", "name is required"),
        ("observability: {config: a.py}", "needs observability.traces.enabled"),
        ("observability: {traces: {}}", "enabled is required"),
        ("concurrency: 4", "must be a mapping"),
    ] {
        let found = errors(text, "torch\n");
        assert!(found.iter().any(|found| found.contains(message)), "{text}: {found:?}");
    }
}

#[test]
fn the_block_of_pinion_does_not_concern_cog() {
    assert_eq!(errors("pinion: {dtype: nonsense, max_model_len: [], other: 1}", ""), [""; 0]);
    assert_eq!(errors("pinion: 7", ""), [""; 0]);
}

#[test]
fn a_pinned_torch_is_accepted() {
    let text = "build: {python_version: '3.13', gpu: yes, python_requirements: requirements.txt}";
    assert_eq!(errors(text, "torch==2.5.1\ntorchvision\n# torch\n"), [""; 0]);
}

#[test]
fn faults_come_with_the_place_of_the_field() {
    let found = check(
        "build:\n  python_version: '3.13'\nenvironment:\n  - A=1\n  - CUDA_HOME=/x\n",
        &|_| None,
    );
    assert_eq!((found[0].line, found[0].column, found[0].path.as_str()), (5, 5, "environment[1]"));
}

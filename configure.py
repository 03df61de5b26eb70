#!/usr/bin/env python3
"""Write build.ninja, and with --setup install what is missing, build and run.

    ./configure.py                 write build.ninja (committed, the same on every machine) and build.local.ninja (ignored)
    ./configure.py --setup demo    install what is missing, build, get a real model, compile it, print text it writes
    ./configure.py --setup test    install what is missing, build, run every test
    ./configure.py --check         exit 1 if the committed build.ninja is not what this script writes
"""
import argparse
import os
import pathlib
import shutil
import subprocess
import sys

ROOT = pathlib.Path(__file__).resolve().parent
DEBIAN_PACKAGES = """gcc clang ninja-build clang-format libclang-rt-14-dev libyaml-dev libyajl-dev libpcre2-dev libutf8proc-dev
    libssl-dev libmicrohttpd-dev libcmocka-dev man-db universal-ctags python3 python3-venv""".split()
PYTHON_PACKAGES = ["numpy", "safetensors", "gguf", "pytest", "jsonschema", "openai==3.57.0", "anthropic==2.14.0",
                   "langchain-openai==1.7.4", "litellm==1.110.2", "schemathesis==4.32.5", "lm-eval==0.4.13"]
# The CUDA toolkit, where none is installed: the compiler, its back end and headers, cudart with the static library.
CUDA_PACKAGES = [f"nvidia-{name}==13.0.*" for name in ("cuda-nvcc", "nvvm", "cuda-crt", "cuda-runtime", "cuda-cccl")]
VENV = ROOT / "build" / "venv"
THREADED = ("test_serving", "test_server_http")  # unit tests that run with ThreadSanitizer, too

# Static where the library allows it: a node needs glibc (and the driver) alone.
RUNTIME_LIBS = ["libpcre2-8", "libutf8proc", "libyajl_s", "libcrypto", "libmicrohttpd"]  # and cudart, wherever the toolkit has it
COMPILER_LIBS = ["libyaml", "libpcre2-8", "libutf8proc", "libyajl_s", "libcrypto"]
TEST_LIBS = COMPILER_LIBS + ["libmicrohttpd"]

COMMON = "-std=c11 -D_GNU_SOURCE -I. -fno-strict-aliasing -fstack-protector-strong -ffp-contract=off"
WARN = ("-Wall -Wextra -Werror -Wshadow -Wstrict-prototypes -Wmissing-prototypes -Wpointer-arith -Wundef -Wvla "
        "-Wformat=2 -Wno-format-nonliteral -Wimplicit-fallthrough")
CARDS = " ".join(f"-gencode arch=compute_{sm},code=sm_{sm}" for sm in (89, 90))  # of the kernels that adallm-rt itself carries
VARIANTS = {  # folder -> (compiler variable, flags, link flags)
    "release": ("cc", "-O2 -g1", ""),
    "debug": ("cc", "-O0 -g3 -DADALLM_DEBUG", ""),
    "asan": ("clang", "-O1 -g -DADALLM_DEBUG -fsanitize=address,undefined -fno-sanitize-recover=all -fno-omit-frame-pointer",
             "-fsanitize=address,undefined"),
    "tsan": ("clang", "-O1 -g -fsanitize=thread", "-fsanitize=thread"),
    "coverage": ("cc", "-O0 -g --coverage", "--coverage"),
    "fuzz": ("clang", "-O1 -g -fsanitize=fuzzer-no-link,address,undefined -fno-sanitize-recover=all",
             "-fsanitize=fuzzer,address,undefined"),
}


def sources(*patterns):
    return sorted(str(p.relative_to(ROOT)) for pattern in patterns for p in ROOT.glob(pattern))


class Ninja:
    def __init__(self):
        self.lines = ["# Written by configure.py; do not edit. Machine-specific paths stand in build.local.ninja.",
                      "ninja_required_version = 1.8", "builddir = build", "include build.local.ninja", ""]

    def add(self, text=""):
        self.lines.append(text)

    def build(self, outs, rule, ins, implicit=(), order_only=(), **variables):
        outs, ins = ([x] if isinstance(x, str) else list(x) for x in (outs, ins))
        tail = (" | " + " ".join(implicit) if implicit else "") + (" || " + " ".join(order_only) if order_only else "")
        self.add(f"build {' '.join(outs)}: {rule} {' '.join(ins)}{tail}")
        for k, v in variables.items():
            self.add(f"  {k} = {v}")

    def text(self):
        return "\n".join(self.lines) + "\n"


def rules(n):
    n.add(f"common = {COMMON}")
    n.add(f"warn = {WARN}")
    for name, (compiler, flags, link) in VARIANTS.items():
        n.add(f"flags_{name} = {flags}")
        n.add(f"rule cc_{name}")
        n.add(f"  command = ${compiler} $common $warn $flags_{name} -isystem $cuda_include -MD -MF $out.d -c $in -o $out")
        n.add("  depfile = $out.d\n  deps = gcc")
        n.add(f"  description = {name} $in")
        n.add(f"rule link_{name}")
        n.add(f"  command = ${compiler} {link} -o $out $in $libs -lpthread -lm -ldl")
        n.add(f"  description = link $out")
    n.add("rule ar\n  command = rm -f $out && ar crsD $out $in\n  description = ar $out")
    n.add("rule embed\n  command = $python compiler/codegen/embed.py $out $in\n  description = embed $out")
    n.add("rule embed_bytes\n  command = $python runtime/device/embed.py $out $name $in\n  description = embed $in")
    n.add(f"rule cuda\n  command = $nvcc -std=c++17 -O3 -I. -fatbin {CARDS} -o $out $in\n  description = nvcc $in")
    n.add("rule script\n  command = $run\n  pool = console\n  description = $run")
    n.add()


def static_libs(names, cuda=False):
    return " ".join(f"-l:{name}.a" for name in names) + (" -L$cuda_lib -l:libcudart_static.a -lrt" if cuda else "")


def objects(n, variant, files):
    outs = []
    for f in files:
        out = f"build/{variant}/{f[:-2]}.o"
        n.build(out, f"cc_{variant}", f)
        outs.append(out)
    return outs


def embedded_templates(n, variant):
    """The templates travel inside adallmc: a generated C file holds their text."""
    templates = sources("templates/**/*.h", "templates/**/*.c", "templates/**/*.cu", "templates/**/*.cuh", "templates/*.def")
    families = sources("models/families/*.yaml")
    generated = "build/gen/embedded.c"
    if variant == "release":
        n.build(generated, "embed", templates + families, implicit=["compiler/codegen/embed.py"])
    out = f"build/{variant}/gen/embedded.o"
    n.build(out, f"cc_{variant}", generated)
    return out


def embedded_kernels(n, variant):
    """The plain read travels inside adallm-rt, compiled for every kind of card."""
    code, generated = "build/gen/plain_read.fatbin", "build/gen/plain_read_code.c"
    if variant == "release":
        n.build(code, "cuda", "templates/plain_read.cu", implicit=sources("templates/lib/*.cuh"))
        n.build(generated, "embed_bytes", code, implicit=["runtime/device/embed.py"], name="plain_read_code")
    out = f"build/{variant}/gen/plain_read_code.o"
    n.build(out, f"cc_{variant}", generated)
    return out


def embedded_page(n, variant):
    """The page of the server travels inside adallm-rt."""
    generated = "build/gen/server_page.c"
    if variant == "release":
        n.build(generated, "embed_bytes", "runtime/server/page.html", implicit=["runtime/device/embed.py"], name="server_page")
    out = f"build/{variant}/gen/server_page.o"
    n.build(out, f"cc_{variant}", generated)
    return out


def programs(n, variant):
    """Objects, two archives and two programs of one variant; returns what tests link with."""
    base = f"build/{variant}"
    runtime = [f for f in sources("runtime/**/*.c") if f != "runtime/main.c"]
    compiler = [f for f in sources("compiler/**/*.c") if f != "compiler/main.c"]
    n.build(f"{base}/libruntime.a", "ar", objects(n, variant, runtime) + [embedded_kernels(n, variant), embedded_page(n, variant)])
    n.build(f"{base}/libcompiler.a", "ar", objects(n, variant, compiler) + [embedded_templates(n, variant)])
    if variant != "fuzz":
        for program, main, libs, system in (
                ("adallm-rt", "runtime/main.c", [f"{base}/libruntime.a"], static_libs(RUNTIME_LIBS, cuda=True)),
                ("adallmc", "compiler/main.c", [f"{base}/libcompiler.a", f"{base}/libruntime.a"],
                 static_libs(COMPILER_LIBS))):
            out = f"build/{program}" if variant == "release" else f"{base}/{program}"
            n.build(out, f"link_{variant}", objects(n, variant, [main]) + libs, libs=system)
        prefix = "build" if variant == "release" else base
        n.build(f"programs-{variant}", "phony", [f"{prefix}/adallm-rt", f"{prefix}/adallmc"])
    return [f"{base}/libcompiler.a", f"{base}/libruntime.a"]


def unit_tests(n, variant, libs):
    outs, benches = [], []
    harness = objects(n, variant, sources("tests/kernels/harness*.c"))
    for f in sources("tests/unit/test_*.c", "tests/kernels/test_*.c", "tests/bench/bench_*.c", "tests/e2e/*.c", "tests/server/*.c"):
        out = f"build/{variant}/tests/{pathlib.Path(f).stem}"
        extra = [] if f.startswith(("tests/unit/", "tests/e2e/", "tests/server/")) else harness
        n.build(out, f"link_{variant}", objects(n, variant, [f]) + extra + libs,
                libs="-lcmocka " + static_libs(TEST_LIBS, cuda=True))
        (benches if f.startswith("tests/bench/") else outs).append(out)
    if variant == "release":
        device_tests(n, variant, harness + libs)
    n.build(f"unit-{variant}", "phony", outs)
    n.build(f"threads-{variant}", "phony", [o for o in outs if o.endswith(THREADED)])
    n.build(f"bench-{variant}", "phony", benches)


def device_tests(n, variant, libs):
    """Tests that need a card; tests/device/prepare and tests/device/run drive them. cmocka travels beside them."""
    programs_ = sources("tests/device/test_*.c", "tests/device/bench_*.c")
    harness = objects(n, variant, [f for f in sources("tests/device/*.c") if f not in programs_])
    outs = []
    for f in programs_:
        outs.append(f"build/device/{pathlib.Path(f).stem}")
        n.build(outs[-1], f"link_{variant}", objects(n, variant, [f]) + harness + libs,
                libs="-lcmocka -Wl,-rpath,'$$ORIGIN' " + static_libs(TEST_LIBS, cuda=True))
    n.build("device-tests", "phony", outs)
    n.build("device", "script", [], order_only=["programs-release", "device-tests"], run="$python tests/device/prepare")


def fuzz_targets(n, libs):
    outs = []
    for f in sources("tests/fuzz/fuzz_*.c"):
        out = f"build/fuzz/{pathlib.Path(f).stem}"
        n.build(out, "link_fuzz", objects(n, "fuzz", [f]) + libs, libs=static_libs(TEST_LIBS, cuda=True))
        outs.append(out)
    n.build("fuzzers", "phony", outs)
    n.build("fuzz-long", "script", [], order_only=["fuzzers"], run="$python tests/fuzz/run.py --seconds 600")


def build_ninja():
    n = Ninja()
    rules(n)
    for variant in VARIANTS:
        libs = programs(n, variant)
        if variant == "fuzz":
            fuzz_targets(n, libs)
        else:
            unit_tests(n, variant, libs)
    n.build("schedules", "script", [], order_only=["build/release/tests/test_schedules"],
            run="build/release/tests/test_schedules 200000")
    n.build("fuzz-api", "script", [], order_only=["programs-release"], run="$python tests/server/fuzz_api.py --requests 20000")
    n.build("soak", "script", [], order_only=["build/release/tests/null_server"], run="$python tests/server/soak.py")
    n.build("test", "script", [],
            order_only=["programs-release", "unit-release", "programs-asan", "unit-asan", "threads-tsan", "fuzzers"],
            run="$python tests/run.py")
    n.build("demo", "script", [], order_only=["programs-release"], run="$python models/demo.py")
    n.build("all", "phony", ["programs-release", "unit-release"])
    n.add("default programs-release")
    return n.text()


def write_if_changed(path, text):
    if not path.exists() or path.read_text() != text:
        path.write_text(text)


def cuda_toolkit(installed_here=True):
    """(nvcc, include, lib) of the first toolkit that has all three; None. installed_here: that of build/venv counts, too."""
    on_path = shutil.which("nvcc")
    roots = [pathlib.Path(on_path).resolve().parent.parent] if on_path else []
    roots += [pathlib.Path(os.environ["CUDA_HOME"])] if os.environ.get("CUDA_HOME") else []
    roots += [pathlib.Path("/usr/local/cuda")]
    roots += sorted(VENV.glob("lib/python3*/site-packages/nvidia/cu13")) if installed_here else []
    for root in roots:
        for lib in (root / "lib64", root / "lib", root / "targets" / "x86_64-linux" / "lib"):
            include = lib.parent / "include"
            if all(f.exists() for f in (root / "bin" / "nvcc", include / "cuda_runtime_api.h", lib / "libcudart_static.a")):
                return str(root / "bin" / "nvcc"), str(include), str(lib)
    return None


def configure():
    write_if_changed(ROOT / "build.ninja", build_ninja())
    python = VENV / "bin" / "python"
    local = {"cc": os.environ.get("CC") or shutil.which("gcc") or "cc", "clang": shutil.which("clang") or "clang",
             "python": str(python if python.exists() else sys.executable)}
    toolkit = cuda_toolkit()
    if not toolkit:
        sys.exit("configure.py: no CUDA toolkit 13 (nvcc, cuda_runtime_api.h, libcudart_static.a): put nvcc on PATH, "
                 "set CUDA_HOME, or let ./configure.py --setup build install it")
    local |= dict(zip(("nvcc", "cuda_include", "cuda_lib"), toolkit))
    write_if_changed(ROOT / "build.local.ninja", "".join(f"{k} = {v}\n" for k, v in local.items()))


# ---- setup -----------------------------------------------------------------------------------------------------------
def run(*command, **options):
    print("+", " ".join(map(str, command)), flush=True)
    subprocess.run([str(c) for c in command], check=True, cwd=ROOT, **options)


def missing_packages():
    if not shutil.which("dpkg-query"):
        sys.exit("configure.py --setup installs Debian packages; on another system install these by hand and run "
                 "./configure.py: " + " ".join(DEBIAN_PACKAGES))
    done = subprocess.run(["dpkg-query", "-W", "-f", "${Package} ${Status}\n", *DEBIAN_PACKAGES],
                          capture_output=True, text=True).stdout
    have = {line.split()[0] for line in done.splitlines() if line.endswith("install ok installed")}
    return [p for p in DEBIAN_PACKAGES if p not in have]


def install():
    missing = missing_packages()
    if missing:
        sudo = [] if os.geteuid() == 0 else ["sudo"]
        env = dict(os.environ, DEBIAN_FRONTEND="noninteractive")
        run(*sudo, "apt-get", "update", "-qq", env=env)
        run(*sudo, "apt-get", "install", "-y", "-qq", "--no-install-recommends", *missing, env=env)
    stamp = VENV / "packages.txt"
    packages = PYTHON_PACKAGES + ([] if cuda_toolkit(installed_here=False) else CUDA_PACKAGES)
    wanted = "\n".join(packages)
    if not stamp.exists() or stamp.read_text() != wanted:
        run("/usr/bin/python3" if pathlib.Path("/usr/bin/python3").exists() else sys.executable, "-m", "venv", "--clear", VENV)
        run(VENV / "bin" / "pip", "install", "-q", "--disable-pip-version-check", *packages)
        stamp.write_text(wanted)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--setup", choices=["demo", "test", "build"], help="install what is missing, build, then run this")
    parser.add_argument("--check", action="store_true", help="check that the committed build.ninja is up to date")
    args = parser.parse_args()
    if args.check:
        sys.exit(0 if (ROOT / "build.ninja").read_text() == build_ninja() else "build.ninja is stale: run ./configure.py")
    if args.setup:
        install()
    configure()
    if args.setup:
        run("ninja", *([] if args.setup == "build" else [args.setup]))


if __name__ == "__main__":
    main()

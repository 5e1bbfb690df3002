"""The example of a reverse proxy does what the documentation says: TLS, and who asks is not believed."""

import os
import shutil
import socket
import ssl
import subprocess
import time
from pathlib import Path
from urllib.request import Request, urlopen

import pytest

from tests.support.tracks import Person, served

EXAMPLE = Path(__file__).parents[4] / "docs" / "tracks" / "nginx.conf"


@pytest.mark.soak
def test_the_proxy_of_the_example_adds_tls_and_says_who_asks(track, store, folder, tmp_path):
    program = shutil.which("nginx") or shutil.which("/usr/sbin/nginx")
    if program is None:
        (pytest.fail if os.environ.get("CI") else pytest.skip)("nginx is not installed")
    key, certificate = tmp_path / "tracks.key", tmp_path / "tracks.pem"
    command = [
        "openssl",
        "req",
        "-x509",
        "-newkey",
        "rsa:2048",
        "-nodes",
        "-days",
        "2",
        "-subj",
        "/CN=localhost",
    ]
    subprocess.run([*command, "-keyout", str(key), "-out", str(certificate)], check=True, capture_output=True)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    with served({"t": track}, store, proxies="127.0.0.1") as address:
        text = EXAMPLE.read_text().replace("listen 443", f"listen 127.0.0.1:{port}")
        text = text.replace("http://127.0.0.1:8080", address).replace("/etc/ssl", str(tmp_path))
        places = "".join(
            f"{kind}_temp_path {tmp_path}/{kind};\n"
            for kind in ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
        )
        config = tmp_path / "nginx.conf"
        config.write_text(
            f"daemon off;\npid {tmp_path}/pid;\nerror_log {tmp_path}/error.log;\nevents {{}}\n"
            f"http {{\naccess_log off;\n{places}{text}}}\n"
        )
        proxy = subprocess.Popen([program, "-c", str(config), "-e", f"{tmp_path}/error.log"])
        try:
            while proxy.poll() is None:
                with socket.socket() as probe:
                    if probe.connect_ex(("127.0.0.1", port)) == 0:
                        break
                time.sleep(0.05)
            assert proxy.poll() is None, (tmp_path / "error.log").read_text()
            trust = ssl.create_default_context()
            trust.check_hostname, trust.verify_mode = False, ssl.CERT_NONE
            sent = Person(tmp_path, "ada").change(folder, "LEVEL = 1.0", "LEVEL = 1.6").to_json().encode()
            url = f"https://127.0.0.1:{port}/api/tracks/t/contributions"
            forged = Request(url, sent, {"X-Forwarded-For": "203.0.113.9"})
            with urlopen(forged, context=trust) as answer:
                assert answer.status == 202
            with urlopen(f"https://127.0.0.1:{port}/t", context=trust) as answer:
                assert f"autoresearch join https://127.0.0.1:{port}/t".split(":")[0] in answer.read().decode()
        finally:
            proxy.terminate()
            proxy.wait()
        networks = store._db.execute("SELECT network FROM contributions").fetchall()
        assert networks == [("127.0.0.0/24",)]

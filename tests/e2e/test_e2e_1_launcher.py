"""The launcher's promises: an interrupted command leaves nothing behind, a killed one is cleaned up after."""

from __future__ import annotations

import base64
import urllib.error
import urllib.request

import httpx
import pytest
from platform_harness import START_S, Platform, survivors

from launcher.environment import USER


def test_a_start_interrupted_by_ctrl_c_ends_with_code_130_and_leaves_no_process(platform: Platform) -> None:
    assert platform.interrupted.code == 130, platform.interrupted.output
    assert platform.interrupted.left == []
    assert "Interrupted" in platform.interrupted.output


def test_the_next_command_ends_the_strays_of_a_killed_one(platform: Platform) -> None:
    assert len(platform.killed.left) >= 4, platform.killed.output  # the four services, at least
    assert platform.after_up == []


def test_up_prints_the_addresses_and_a_login_that_works(platform: Platform) -> None:
    home, output = platform.home, platform.up_output
    assert home.base_url in output
    assert home.mlflow_url in output
    assert f"user {USER}, password {home.password}" in output
    login = {"username": USER, "password": "wrong"}
    wrong = httpx.post(f"{home.base_url}/auth/token", json=login, timeout=START_S)
    assert wrong.status_code == 401
    assert httpx.get(f"{home.base_url}/api/v2/dags", timeout=START_S).status_code == 401


def test_mlflow_answers_behind_the_same_login(platform: Platform) -> None:
    url = f"{platform.home.mlflow_url}/api/2.0/mlflow/experiments/search?max_results=1"
    with pytest.raises(urllib.error.HTTPError, match="401"):
        urllib.request.urlopen(url, timeout=START_S)
    login = base64.b64encode(f"{USER}:{platform.home.password}".encode()).decode()
    request = urllib.request.Request(url, headers={"Authorization": f"Basic {login}"})
    answer = urllib.request.urlopen(request, timeout=START_S)
    assert answer.status == 200


def test_every_server_listens_on_the_loopback_address_only(platform: Platform) -> None:
    ports = {platform.home.port, platform.home.mlflow_port}
    listening = set()
    with open("/proc/net/tcp") as table:
        for line in table.readlines()[1:]:
            address, state = line.split()[1], line.split()[3]
            host, port = address.split(":")
            if state == "0A" and int(port, 16) in ports:
                listening.add((host, int(port, 16)))
    assert listening == {("0100007F", port) for port in ports}
    assert survivors(platform.home.var_dir)

# SPDX-License-Identifier: Apache-2.0
"""bypath-sockmap's programs under real traffic on the machine's own kernel: every byte is compared.

attached.py      the programs, attached as long as a test runs, and their maps
pinned.py        what becomes of pinned programs: upgrades, parts that are missing, their end
pods.py          two pods and the way between them
connections.py   two connected sockets, and what one does with them
load/            connections by the thousand that reuse their ports, one process for all ends; exchange.py runs it
soak.py          `make soak`: the same load for as long as it takes
starved.bpf.c    our programs where no segment can be cut, which must end the stream and not tear it
naive.bpf.c      pairing by the client's address and port, which the same load must catch
probe.bpf.c      whether the kernel's sockmap is fit, asked without any program of ours
programs/        nginx, haproxy, Envoy, redis and PostgreSQL in accelerated pods
"""

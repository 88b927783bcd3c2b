# Samples of `perf script`, one to a paragraph with the innermost frame first, to a table of stages, with a column for each node.
# The name of a stage, then what its frames are called; the order of the stages decides only within one frame.
function stage(name, frames) { names[++stages] = name; rules[stages] = frames }

BEGIN {
    RS = ""; FS = "\n"
    stage("compression (zstd)", "ZSTD_|service::seal::(pack|unpack)")
    stage("encryption (AES-GCM)", "aes_gcm|service::seal")
    stage("document: read, merge, checksum", "model::document|content::prepare|sha2::|sha256")
    # By the calls into it: what is within is called alike everywhere.
    stage("RocksDB: lookup", "^rocksdb_get|DBImpl::Get")
    stage("RocksDB: commit", "^rocksdb_write|DBImpl::Write")
    stage("RocksDB: flush and compaction", "DBImpl::Background|DBImpl::BGWork")
    stage("log: sync", "sync_data|fdatasync|do_fsync")
    stage("log: batches", "storage::log|log-writer")
    stage("state: commits in memory", "storage::db|storage::state")
    stage("apply", "machine::|model::shard|model::codec|bincode")
    stage("watch and cache after a commit", "EventSink|service::watch|service::cache")
    stage("QUIC and UDP", "quinn|rustls|recvmmsg|sendmsg|udp_")
    stage("frames between nodes", "raft::transport|raft::network|raft::inbound|raft::message")
    stage("openraft", "openraft")
    stage("service: route, queue, propose", "raft::service|raft::proposer|raft::group|raft::")
    stage("HTTP", "gateway::|hyper|axum|tower|http::|tcp_|writev|__recv")
    special = stages
    nodes = split(pids, process, ",")
    for (node = 1; node <= nodes; node++) node_of[process[node]] = node
    # Only what is in none of those.
    stage("RocksDB: the rest", "rocksdb")
    stage("runtime: tasks, timers, sleep and wake", "tokio|sched|futex|epoll|syscall|thread_start")
}

function find(from, to,    frame, number) {
    for (frame = 2; frame <= NF; frame++)
        for (number = from; number <= to; number++)
            if (name[frame] ~ rules[number]) return number
    return 0
}

{
    for (frame = 2; frame <= NF; frame++) {
        name[frame] = $frame
        sub(/^[ \t]*[0-9a-f]+ /, "", name[frame])
    }
    found = find(1, special)
    if (!found) found = find(special + 1, stages)
    count[found]++
    total++
    # The first line has the thread's name, which may have spaces, and last the process.
    words = split($1, word, /[ \t]+/)
    while (words && word[words] !~ /^[0-9]+$/) words--
    by_node[found, node_of[word[words]]]++
    of_node[node_of[word[words]]]++
}

END {
    if (!total) { print "profile: no samples" > "/dev/stderr"; exit 1 }
    names[0] = "not told apart"
    per_sample = cpu * 1000 / total
    head = "| stage | of all | all nodes"; line = "|---|---|---"
    for (node = 1; node <= nodes; node++) { head = head " | node " node; line = line "|---" }
    print head " |\n" line "|"
    for (number = 1; number <= stages + 1; number++) {
        place = number > stages ? 0 : number
        printf "| %s | %.1f %% | %.1f", names[place], count[place] / total * 100, count[place] * per_sample
        for (node = 1; node <= nodes; node++) printf " | %.1f", by_node[place, node] * per_sample
        print " |"
    }
    printf "| all (%d samples) | | %.0f", total, total * per_sample
    for (node = 1; node <= nodes; node++) printf " | %.0f", of_node[node] * per_sample
    print " |"
}

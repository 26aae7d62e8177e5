fn main() {
    let t = std::time::Instant::now();
    let which = std::env::args().nth(1).unwrap();
    let seed = std::env::args().nth(2).map_or(1, |s| s.parse().unwrap());
    let rows = match which.as_str() {
        "identities" => posync_economy::attacks::identities::rows(seed),
        "reserving" => posync_economy::attacks::reserving::rows(seed),
        "fees" => posync_economy::attacks::fees::rows(),
        "pumped" => posync_economy::attacks::pumped::rows(),
        "rooms" => posync_economy::attacks::rooms::rows(),
        "redeemed" => posync_economy::attacks::redeemed::rows(seed),
        "stored" => posync_economy::attacks::stored::rows(seed),
        _ => posync_economy::attacks::all(seed),
    };
    for r in rows {
        println!("{} {:>20} {} | {}", if r.holds() { "ok  " } else { "FAIL" }, r.figure, r.name, r.region);
    }
    println!("{:?}", t.elapsed());
}
